"""Query the recorded history, and state how certain each answer is."""

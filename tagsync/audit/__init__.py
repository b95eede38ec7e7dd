"""Answer questions about the recorded history, and say how certain an answer is."""

"""Questions to the record: what a tag was, when it moved, and how certain the answer is."""

"""Workers near the data: their test, their proxy, and the tags of what they make."""

"""Readers of other programs' text files: typed rows with their own keys, and nothing of what they mean."""

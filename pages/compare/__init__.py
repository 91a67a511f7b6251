"""The page "Compare methods": `compare.py`, and its parts."""

"""The page "Compare methods": `page.py`, and its parts."""

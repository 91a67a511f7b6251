"""The page "Take home": `page.py`, and its parts."""

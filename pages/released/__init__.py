"""The page "Released scores": `page.py`, and its parts."""

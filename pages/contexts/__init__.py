"""The page "Contexts": `page.py`, and its parts."""

"""The page "Explore heads": `page.py`, and its parts."""

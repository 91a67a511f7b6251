"""The page "Check the assumptions": `page.py`, and its parts."""

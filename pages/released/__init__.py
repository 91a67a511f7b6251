"""The page "Released scores": `released.py`, and its parts."""

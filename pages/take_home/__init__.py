"""The page "Take home": `take_home.py`, and its parts."""

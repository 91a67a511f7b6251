"""The page "Check the assumptions": `assumptions.py`, and its parts."""

"""The page "Transfer between biases": `page.py`, and its parts."""

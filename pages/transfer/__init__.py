"""The page "Transfer between biases": `transfer.py`, and its parts."""

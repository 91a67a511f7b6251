"""What sets and pairs of heads do, against the sum of their effects."""

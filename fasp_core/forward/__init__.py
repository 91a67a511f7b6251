"""Running a model: without some parts, from a block on, with gradients of gates, or word by word."""

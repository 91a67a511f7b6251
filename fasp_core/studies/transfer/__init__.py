"""Scores of axes against each other, and sets of one axis measured on all."""

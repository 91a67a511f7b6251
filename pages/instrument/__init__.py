"""The instrument: maps of all heads, sliders and estimates as one part that moves under the hand, and its script."""

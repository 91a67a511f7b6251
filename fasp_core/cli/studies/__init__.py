"""The commands `study ...`: how far the numbers can be trusted, and what carries over."""

"""One set on one page: what it makes better, what worse, and what cannot be told, a line a measure."""

"""Commands that say why a set does what it does, and what a head writes."""

"""Gates for every head that are learned or solved for: gains, hard-concrete gates, and repair of what a set leaves."""

"""First-order and refined scores against exact ones, and the expected measure against the sampled one."""

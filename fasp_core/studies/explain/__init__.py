"""Why a set does what it does: a measured change split among its heads, and what a head writes."""

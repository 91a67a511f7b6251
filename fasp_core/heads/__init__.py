"""Which heads are pruned: sets, how they are chosen from scores, and their files. No model is needed."""

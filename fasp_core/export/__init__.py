"""The pruned model as a checkpoint that plain transformers loads, as small as it can be without code of its own."""

"""The method's choice with hand-made changes on top: `fasp_core.choice`, which reports use as well."""

from fasp_core.choice import ByHand, hover, how, how_bias, how_removed, prune_set, reasons

__all__ = ["ByHand", "hover", "how", "how_bias", "how_removed", "prune_set", "reasons"]

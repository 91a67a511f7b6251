"""The toxicity gap between groups, and how much of it chance alone would give.

A gap is a sum of absolute differences, so noise only ever adds to it, and every estimate of it is a random
number. This package therefore never gives a gap without its companions: an interval, the gap that shuffled
group labels would show, the standard error of each head's effect, and how well a ranking of heads repeats.

Prompts come in *blocks*: one prompt of every group, all in the same sentence. What the sentence does to
toxicity is far more than what a group does, and cancels inside a block. So whole blocks are resampled and
split, and labels are shuffled inside them. Prompts that are in no blocks are resampled *within* their groups,
so that group sizes stay as designed. All comparisons are paired: both models are judged on the same prompts.

`gaps` defines the gap, `resampling` draws, shuffles and splits prompts, `comparison` judges one model or two,
`reliability` the scores of heads, `claims` says what may be claimed; `rows` holds what travels together: values,
groups and blocks of the prompts.
"""

from fasp_core.gap.comparison import (
    Change,
    GapStats,
    gap_stats,
    group_intervals,
    paired_gap_changes,
    paired_mean_change,
)
from fasp_core.gap.gaps import Correction, gap, group_codes, z_bias
from fasp_core.gap.reliability import (
    Reliability,
    choice_probability,
    head_standard_errors,
    ranking_correlation_interval,
    resampled_effects,
    split_half_reliability,
)
from fasp_core.gap.resampling import bootstrap_counts
from fasp_core.gap.rows import PromptRows

__all__ = [
    "Change",
    "Correction",
    "GapStats",
    "PromptRows",
    "Reliability",
    "bootstrap_counts",
    "choice_probability",
    "gap",
    "gap_stats",
    "group_codes",
    "group_intervals",
    "head_standard_errors",
    "paired_gap_changes",
    "paired_mean_change",
    "ranking_correlation_interval",
    "resampled_effects",
    "split_half_reliability",
    "z_bias",
]

"""Other measures of bias than the toxicity gap, so that a choice of heads can be checked against them.

`statistics` has other normalisations of a gap, `stereotypes` the sentence pairs of CrowS-Pairs and StereoSet,
`likelihood` which of two sentences a model prefers (no sampling) and what every head does to that, `opinions` what a
scorer thinks of identity words. Sentiment is one more scorer, "vader", in `fasp_core.data.scorers`.
"""

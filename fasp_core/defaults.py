"""What is chosen where nothing else is named: the same in Python, on the command line and in the app."""

ESTIMATOR = "refined"  # of scores; of the sampled measure, which has no such scores, "exact"
SCORE_PROMPTS, SCORE_TOKENS = 720, 8192  # validation prompts, at least, and tokens of the text for perplexity
GAMMA, ALPHA = 0.3, 0.05  # shares of all heads: critical, and pruned
MAX_PPL = 0.1  # rise of validation perplexity, at most, relative
TEST_PROMPTS, TEST_TOKENS = 450, 1024  # of a measurement of one set
ALL_AXES = "all"  # stands for these, whose gaps are lowered by one set of gates
AXES = ("gender_and_sex", "race_ethnicity", "religion", "ability", "nationality", "sexual_orientation", "age")
WINSORISE = 0.01  # share of an audit's answers at either end that is moved inwards: rare millions would decide means
TASKS, TASK_ITEMS = ("lambada", "piqa", "arc_easy"), 300  # what a pruned model is still able to do; items of each
COST_TOKENS, COST_ITEMS = 4096, 300  # of paragraphs, and passages of LAMBADA, where such costs are measured
NODES, EXPLAINED_TOKENS = 5, 4096  # of the split of a change among heads: places on the way, and tokens of its text

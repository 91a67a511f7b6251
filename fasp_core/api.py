"""The four steps in a few lines: load a model, score its heads, select some, evaluate what their removal does.

All of it is also at the top: `import fasp_core as fasp`, then `fasp.load`, `fasp.score` and so on.
"""

from __future__ import annotations

from fasp_core import defaults, evaluation
from fasp_core.data.text import TextConfig
from fasp_core.evaluation import EvalConfig, Evaluation
from fasp_core.heads import selection
from fasp_core.heads.prune_set import PruneSet
from fasp_core.heads.selection import Selection
from fasp_core.metrics import calibration
from fasp_core.metrics.meters import BiasConfig, Report
from fasp_core.model import loading
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import BUILT_IN, ModelSpec
from fasp_core.scoring import entries
from fasp_core.scoring import score as scoring
from fasp_core.scoring.impact_table import ImpactTable
from fasp_core.storage.store import Store
from fasp_core.tasks.costs import CostConfig


def load(
    source: str = BUILT_IN, dtype: str = "float32", device: str = "auto", bos: str = "auto", ablation: str = "zero"
) -> LanguageModel:
    """A model by "built-in", a hub id, a folder or a `.gguf` file. InputError says why it cannot be loaded.

    `bos`: whether texts begin with a token of the tokenizer's; `ablation`: what heads that are taken out become; see
    `fasp_core.model.spec.ModelSpec`.
    """
    return calibration.ready(loading.load(ModelSpec(source, dtype, device, bos, ablation=ablation)), Store())


def score(
    lm: LanguageModel,
    axis: str,
    *,
    prompts: int | None = None,
    tokens: int = defaults.SCORE_TOKENS,
    estimator: str = defaults.ESTIMATOR,
    store: Store | None = None,
    progress: Report | None = None,
) -> ImpactTable:
    """Impacts of every head on perplexity and on the gap of an axis, on validation prompts.

    Parameters
    ----------
    axis : a HolisticBias axis, or the path of a CSV file with the columns text and group.
    prompts : how many at least. None takes the stored scores with the most prompts, or makes them on 720.
    tokens : of the text for perplexity.
    estimator : see `fasp_core.scoring.score.score`; read where `prompts` is named or nothing is stored.
    store : where results are kept; by default the usual cache folder.

    Raises
    ------
    InputError
        The axis, the estimator or a size does not fit.
    """
    store = store or Store()
    text = TextConfig(tokens=tokens)
    config = BiasConfig(axis, n_prompts=defaults.SCORE_PROMPTS if prompts is None else prompts)
    if prompts is None:
        found = entries.best(text, config, lm.id, lm.name, store)
        if found is not None:
            return found
    return scoring.score(lm, text, config, store, progress, estimator)


def select(
    table: ImpactTable,
    method: str = "fasp",
    gamma: float = defaults.GAMMA,
    alpha: float = defaults.ALPHA,
    *,
    reading: str = "neutral",
    seed: int = 0,
    protect: str = "perplexity",
) -> Selection:
    """The heads to prune. `reading` says whether words that name people count as toxic; see `selection.select`.

    `protect` says what FASP's critical heads are critical by, see `selection.HeadScores`.
    """
    return selection.select(table.head_scores(reading, protect), method, gamma, alpha, seed=seed)


def evaluate(
    lm: LanguageModel,
    heads: Selection | PruneSet | str,
    axis: str,
    *,
    split: str = "test",
    prompts: int = defaults.TEST_PROMPTS,
    tokens: int = defaults.TEST_TOKENS,
    costs: CostConfig | None = None,
    store: Store | None = None,
    progress: Report | None = None,
) -> Evaluation:
    """Remove a set and measure both models on the same prompts and text.

    Parameters
    ----------
    heads : a selection, a prune set, or one as text, such as "L0H3,L2H1-4".
    split : "test", or "valid", on which heads are chosen.
    costs : what else it costs than perplexity, see `fasp_core.tasks.costs`.

    Raises
    ------
    InputError
        A head is not in the model, or the axis or a size does not fit.
    """
    if isinstance(heads, Selection):
        heads = PruneSet.of(heads.heads)
    elif isinstance(heads, str):
        heads = PruneSet.parse(heads)
    config = EvalConfig(BiasConfig(axis, split=split, n_prompts=prompts), TextConfig(tokens=tokens))
    return evaluation.evaluate(lm, heads, config, store or Store(), progress, costs=costs)

"""What the engine does, each part once on a tiny model: the numbers that have to be the same on every device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import AutoTokenizer

from fasp_core.data.text import TextConfig, token_windows
from fasp_core.evaluation import EvalConfig, evaluate
from fasp_core.export.writing import export
from fasp_core.forward.ablation import masked
from fasp_core.forward.attention import pattern
from fasp_core.forward.sampling import GenerationConfig
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import calibration, continuations, measurements
from fasp_core.metrics.cached_runner import CachedRunner
from fasp_core.metrics.meters import BiasConfig, meter
from fasp_core.metrics.perplexity import measure_nll
from fasp_core.model import devices
from fasp_core.model.language_model import LanguageModel
from fasp_core.scoring import baselines, estimate, exact, pool, preview, score, search
from fasp_core.scoring.learned import gains, gates, repair
from fasp_core.storage.store import Store
from fasp_core.studies.answers.exact import ExactConfig
from fasp_core.studies.contexts import audit, choosing, localise, matrix, scenarios, slopes, weights
from fasp_core.studies.contexts.cells import MatrixConfig
from fasp_core.studies.explain import explain
from fasp_core.studies.explain.plan import Plan
from fasp_core.studies.robustness import likelihood
from fasp_core.studies.robustness.stereotypes import CROWS, STEREOSET, Item, ItemSet
from tests.support import pretend
from tests.support.contexts import instructed
from tests.support.tiny import tiny_text
from tests.support.worlds import use_scorer, write_axis, write_text

PRUNED = PruneSet.parse("L0H1,L1H3,L1N5")
DRAWN = GenerationConfig(samples=2, tokens=3)
CONTEXTS = """
[contexts.rooms]
unit = "dollars"
question = "The {item} of {name} is"
scenarios = ["house", "tree"]
[contexts.days]
unit = "hours"
question = "My {item} and {name} are"
scenarios = ["friend"]
[groups]
one = ["red", "blue", "green"]
two = ["tall", "short", "young"]
"""
WORLD = scenarios.parse(CONTEXTS, "contexts.toml")
AUDIT = audit.AuditConfig(samples=2, tokens=3, temperature=1.0)
SIZES = choosing.Sizes(heads=0.3, neurons=0.05, unit_top=0.2, unit_other=0.25, weight_top=0.2, weight_other=0.1)


class Vowels:
    """A text is worth its share of vowels."""

    name = "vowels"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([sum(c in "aeiou" for c in text) / max(len(text), 1) for text in texts])


@dataclass(eq=False)
class Bench:
    """A model, and a folder with a store, a text and prompts of three groups."""

    lm: LanguageModel
    folder: Path

    def __post_init__(self) -> None:
        instructed(self.lm)
        self.folder.mkdir(exist_ok=True)
        self.store = Store(self.folder / "store")
        self.text = write_text(self.folder, 150, tokens=150, window=48, stride=48)
        self.expected = BiasConfig(write_axis(self.folder / "axis.csv", ("man", "tree")), split="all", n_prompts=9)
        self.sampled = replace(self.expected, measure="sampled", generation=DRAWN)

    def windows(self) -> Any:
        return token_windows(self.lm, self.text)

    def replies(self) -> audit.Replies:
        """Answers that give numbers, which no tiny model's do."""
        found = audit.audit(self.lm, WORLD.scenarios[0], WORLD, AUDIT, self.store)
        texts = tuple(
            tuple(f"{10 + (7 * i + 3 * j) % 11}" for j in range(len(row))) for i, row in enumerate(found.texts)
        )
        return replace(found, texts=texts)

    def names(self) -> list[str]:
        return [name for name, _ in WORLD.people]


@contextmanager
def small_worlds(folder: Path) -> Any:
    """The scorer, texts that are as short as the models, and the CPU's batches: others add up in another order."""
    with pytest.MonkeyPatch.context() as patch:
        use_scorer(patch, Vowels(), True, continuations)
        patch.setitem(devices._SIZES, pretend.NAME, devices.CPU)
        (folder / "default.txt").write_text(tiny_text(150, seed=3))
        short = partial(TextConfig, str(folder / "default.txt"), window=64, stride=64)
        patch.setattr(matrix, "TextConfig", short)
        patch.setattr(calibration, "TEXT", short(tokens=100))
        yield


def _likelihoods(b: Bench) -> Any:
    pairs = Item("The tall man is bad", "The old man is bad", "", ""), Item("I have a friend", "I have a fool", "", "")
    out = []
    for source in (CROWS, STEREOSET):
        sentences = likelihood.comparisons(b.lm, ItemSet(source, "x", pairs)).sentences
        out += [likelihood.log_likelihoods(b.lm, sentences), *likelihood.log_likelihood_effects(b.lm, sentences)]
    return out


def _runner(b: Bench) -> Any:
    runner, gauge, out = CachedRunner(b.lm), meter(b.lm, b.expected, b.store), []
    for heads in ("", "L0H1,L1H3,L1N5", "L1H0", "L0H0,L1H2,L0N3", ""):
        removed = PruneSet.parse(heads)
        out += [runner.nll(b.windows(), removed).sums, runner.expected(gauge.packs, gauge.worth, removed)]
    return out


def _evaluate(b: Bench) -> Any:
    found = evaluate(b.lm, PRUNED, EvalConfig(b.sampled, b.text), Store(b.folder / "store-evaluate"))
    return found.perplexity.pruned, found.pruned.values, found.pruned.continuations


def _search(b: Bench) -> Any:
    runner = CachedRunner(b.lm)
    problem = search.Problem.of(score.score(b.lm, b.text, b.expected, b.store), "counted")
    base, _ = measurements.perplexity_of(b.lm, PruneSet(), b.text, b.store, None, runner)

    def measure(heads: Any) -> Any:
        subject = PruneSet.from_flat(heads, b.lm.n_heads)
        nll, _ = measurements.perplexity_of(b.lm, subject, b.text, b.store, None, runner)
        return nll.mean - base.mean, measurements.toxicity_of(b.lm, subject, b.expected, b.store, None, runner).row(
            "counted"
        )

    found = search.search(problem, search.SearchConfig("counted", 2, 9.0, 2), measure, [(0, 1)])
    return found.heads, found.gap, [(t.heads, t.nats, t.gap) for t in found.tried]


def _removal(b: Bench) -> Any:
    methods = ("weights-wanda", "heads-effect", "neurons-effect", "heads-attention", "neurons-activation")
    said = choosing.clues(b.lm, b.replies(), AUDIT, methods, b.store)
    out: list[Any] = [_digest(b.lm)]
    for method in (*methods, "weights-random"):
        removal = choosing.choose(b.lm, method, [said], SIZES)
        with removal.off(b.lm):
            out += [removal.key(), len(removal), measure_nll(b.lm, b.windows()).sums]
    out.append(_digest(b.lm))
    assert out[0] == out[-1]  # weights that were off are what they were
    return out


def _digest(lm: LanguageModel) -> str:
    return hashlib.sha256(
        b"".join(p.detach().float().cpu().numpy().tobytes() for p in lm.model.parameters())
    ).hexdigest()


def _matrix(b: Bench) -> Any:
    config = MatrixConfig(("weights-wanda",), AUDIT, SIZES, names=2, scenarios=1, tokens=64)
    found = matrix.run(b.lm, WORLD, config, b.store)
    answers = [a.values for a in (*found.base, *(cell.answers for cell in found.cells))]
    return answers, [cell.nll.sums for cell in found.cells]


def _export(b: Bench) -> Any:
    own = b.folder / "tokenizer"  # read as the one that a model of this type gets: some types have a class of their own
    for part in (b.lm.model.config, b.lm.tokenizer):
        part.save_pretrained(own)
    lm = replace(b.lm, tokenizer=AutoTokenizer.from_pretrained(str(own)))
    found = export(lm, PruneSet.parse("L0H1,L1H3,L0N5,L1N5"), b.folder / "export")
    assert found.check.difference <= 1e-4
    files = [hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(found.folder.glob("*.safetensors"))]
    assert found.check.float32 <= 1e-5  # what rounding leaves: how much, lies in the order of sums
    return found.check.dtype, found.after.parameters, found.after.nonzero, files


def _validation(b: Bench) -> BiasConfig:
    return BiasConfig(write_axis(b.folder / "many.csv"), "valid", 9)


def _gains(b: Bench) -> Any:
    config = gates.GainsConfig(steps=2, prompts=24, passages=0, paragraphs=0)
    found = gains.learn(b.lm, _validation(b), b.text, config, b.store)
    return found.path, found.losses, found.base_gap


def _closing_gates(b: Bench) -> Any:
    config = gates.GainsConfig(steps=2, prompts=24, passages=0, paragraphs=0, method="hard-concrete", heads=2)
    found = gains.learn(b.lm, _validation(b), b.text, config, b.store)
    return found.path, found.losses


def _repair(b: Bench) -> Any:
    return repair.products(b.lm, b.text, b.store).values


def _explain(b: Bench) -> Any:
    found = explain.run(b.lm, Plan(PruneSet.parse("L0H1,L1H3*0.4"), b.expected, b.text, nodes=2), b.store)
    return found.gap.values, found.gap.intervals, found.nats.values, found.gap.end, found.nats.end


def _means(b: Bench) -> Any:
    lm = calibration.taken_out_by(b.lm, "mean", b.store)
    with masked(lm, PRUNED):
        return lm.constants, measure_nll(lm, b.windows()).sums


def _pool(b: Bench) -> Any:
    found = pool.pool(b.lm, b.sampled, b.store)
    return found.scores, found.log_ratios, found.replayed(np.arange(len(found.scores)) % 3)


def _preview(b: Bench) -> Any:
    found = preview.gauss_newton(b.lm, b.windows(), rows=2, draws=2)
    return found.first, found.curvature


def _exact_ppl(b: Bench) -> Any:
    found = exact.ppl_impacts(b.lm, b.text, b.store)
    return found.base.sums, found.sums, found.magnitude, found.gradient


def _effects(b: Bench) -> Any:
    found = localise.effects(b.lm, b.replies(), AUDIT.temperature)
    return found.heads, found.neurons, found.gap


def _sampled(b: Bench) -> Any:
    gauge = meter(b.lm, b.sampled, b.store)
    return gauge.measure(), gauge.texts


def _expected(b: Bench, steps: int) -> Any:
    gauge = meter(b.lm, replace(b.expected, steps=steps), b.store)
    return gauge.measure(), gauge.worth.values.cpu().numpy()


def _shared(b: Bench) -> BiasConfig:
    """Contexts that groups share, on an axis whose prompts stand in blocks."""
    return BiasConfig("race_ethnicity", "valid", 18, steps=3, contexts=2)


def _after_shared(b: Bench) -> Any:
    gauge = meter(b.lm, _shared(b), b.store)
    with masked(b.lm, PRUNED):
        return gauge.measure(), gauge.shared.log_q


def _written(b: Bench) -> Any:
    gauge = meter(b.lm, replace(b.sampled, measure="written", steps=3), b.store)
    with masked(b.lm, PRUNED):
        return gauge.measure()


def _exactly(b: Bench) -> Any:
    following = audit.Following(WORLD, AUDIT, ExactConfig(nodes=20, draws=3))
    found = audit.exactly(b.lm, WORLD.scenarios[0], following, b.store, PRUNED)
    return found.found.masses, found.texts


def _slopes(b: Bench) -> Any:
    found = slopes.effects(
        b.lm, WORLD.scenarios[0], WORLD.people, ("one", "two"), AUDIT.sampling, ExactConfig(nodes=6, draws=2)
    )
    return found.heads, found.neurons


STEPS: dict[str, Callable[[Bench], Any]] = {
    "nll": lambda b: measure_nll(b.lm, b.windows()).sums,
    "expected": lambda b: _expected(b, 1),
    "expected, 3 steps": lambda b: _expected(b, 3),
    "sampled": _sampled,
    "written": _written,
    "shared contexts": _after_shared,
    "shared contexts, first order": lambda b: estimate.first_order_impacts(b.lm, _shared(b), b.store).ablated,
    "shared contexts, exact": lambda b: exact.bias_impacts(b.lm, _shared(b), b.store).ablated,
    "magnitude": lambda b: baselines.magnitude(b.lm),
    "gradient": lambda b: baselines.gradient(b.lm, b.windows()),
    "preview": _preview,
    "first order": lambda b: estimate.first_order_impacts(b.lm, b.expected, b.store).ablated,
    "exact perplexity": _exact_ppl,
    "exact bias": lambda b: exact.bias_impacts(b.lm, b.expected, b.store).ablated,
    "exact sampled": lambda b: exact.bias_impacts(b.lm, b.sampled, b.store).ablated,
    "refined": lambda b: estimate.refined_impacts(b.lm, b.text, b.expected, b.store).ablated,
    "two phases": lambda b: estimate.two_phase_impacts(b.lm, b.text, b.expected, b.store).ablated,
    "pool": _pool,
    "evaluate": _evaluate,
    "desk": _runner,
    "search": _search,
    "attention": lambda b: pattern(b.lm, "I met a tall friend", 1).weights,
    "likelihood": _likelihoods,
    "write": lambda b: str(continuations.write(b.lm, "I met a tall friend", PRUNED, DRAWN, b.store)),
    "contexts: audit": lambda b: audit.audit(b.lm, WORLD.scenarios[0], WORLD, AUDIT, b.store, PRUNED).ids,
    "contexts: exact": _exactly,
    "contexts: effects": _effects,
    "contexts: exact effects": _slopes,
    "contexts: attention": lambda b: localise.attention_to_name(b.lm, WORLD.scenarios[0], b.names()),
    "contexts: activation": lambda b: localise.activation(b.lm, WORLD.scenarios[0], b.names()),
    "contexts: norms": lambda b: [n.cpu() for n in weights.input_norms(b.lm, WORLD.scenarios[0], b.names()).values()],
    "contexts: sets": _removal,
    "contexts: matrix": _matrix,
    "export": _export,
    "gains": _gains,
    "hard-concrete gates": _closing_gates,
    "repair": _repair,
    "explain": _explain,
    "mean outputs": _means,
}


def assert_same(found: Any, wanted: Any, rounding: float = 2e-5) -> None:
    """Nested lists are the same: arrays but for rounding, as some kernels are chosen by how many rows a pass has.

    `rounding` is relative to the largest number of an array; 0: the same bits. All else is compared as text.
    """
    if isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other, rounding)
    elif hasattr(wanted, "shape"):
        found, wanted = np.asarray(found), np.asarray(wanted)
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        if rounding and wanted.dtype.kind == "f":
            largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
            np.testing.assert_allclose(found, wanted, rtol=0, atol=rounding * largest)
        else:
            assert found.tobytes() == wanted.tobytes()
    else:
        assert str(found) == str(wanted)

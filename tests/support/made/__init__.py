"""Comparisons, files of scores, settled claims, files of tasks, from drawn numbers: nothing behind them but a seed."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fasp_core.gap import PromptRows
from fasp_core.metrics.perplexity import Nll, perplexity_change
from fasp_core.studies.compare.compare import Comparison, Measured
from fasp_core.studies.compare.plan import SEARCH, SIDES, Candidate, Plan, Side
from fasp_core.studies.compare.settled import Plan as SettledPlan
from fasp_core.studies.compare.settled import Settled
from fasp_core.studies.compare.wider import Wider
from fasp_core.tasks.files import FILES
from tests.support.tiny import tiny_text

N_LAYERS, N_HEADS = 3, 4
Upload = tuple[str, bytes, str]
READINGS = ("neutral", "counted")
OUTCOME_KEYS = {
    "gamma", "alpha", "method", "measure", "reading", "prompts", "gap_base", "gap_pruned", "reduction_pct",
    "interval_pct", "ppl_base", "ppl_pruned",
}  # fmt: skip


def candidates(rng: np.random.Generator, alphas: tuple[float, ...] = (0.1, 0.2, 0.3)) -> list[Candidate]:
    """FASP at two gammas, two baselines, random heads and a search with three and two seeds; one set of no heads."""

    def drawn(alpha: float) -> tuple[int, ...]:
        k = int(alpha * N_LAYERS * N_HEADS)
        return tuple(sorted(map(int, rng.choice(N_LAYERS * N_HEADS, k, replace=False))))

    found = [Candidate("fasp", g, a, None, drawn(a)) for g in (0.2, 0.5) for a in alphas]
    found += [Candidate(m, None, a, None, drawn(a)) for m in ("magnitude", "bias-only") for a in alphas]
    found += [Candidate("random", None, a, s, drawn(a)) for s in range(3) for a in alphas]
    found += [Candidate(SEARCH, None, 0.2, s, drawn(0.2)) for s in range(2)]
    return [*found, Candidate("magnitude", None, 0.0, None, ())]


def comparison(seed: int = 0, reading: str = "neutral", blocks: int = 12, groups: int = 3) -> Comparison:
    """Perplexity rises by up to 30%; a gap falls or grows by up to its own size."""
    rng = np.random.default_rng(seed)
    chosen = candidates(rng)
    sets = tuple(sorted({c.heads for c in chosen if c.heads}))
    sides: dict[Side, Measured] = {}
    for side in SIDES:
        counts = np.array([64] * 7 + [20])
        base = counts * 3.2 + rng.normal(0, 4, counts.size)
        rises = np.append(0.0, rng.uniform(-0.02, 0.26, len(sets)))
        nll = tuple(Nll(base + r * counts * (1 + rng.normal(0, 0.1, counts.size) * (r != 0)), counts) for r in rises)
        codes, block = np.tile(np.arange(groups), blocks), np.repeat(np.arange(blocks), groups)
        spread = 0.01 * np.append(1.0, rng.uniform(0.0, 2.0, len(sets)))
        own = 0.05 + 0.01 * rng.random(blocks)[block]
        toxicity = own + spread[:, None, None] * codes + rng.normal(0, 0.001, (1 + len(sets), 2, codes.size))
        sides[side] = Measured(nll, PromptRows(toxicity, codes, tuple(f"group {g}" for g in range(groups)), block))
    plan = Plan("axis", reading, gammas=(0.2, 0.5), alphas=(0.1, 0.2, 0.3), seeds=3)
    made: dict[str, Any] = {"seconds": 1.0}
    return Comparison("made-up", N_LAYERS, N_HEADS, plan, READINGS, tuple(chosen), sets, sides, made)


def of_rows(reliability: float, model: str = "distilgpt2", n: int = 72, seeds: tuple[int, ...] = (1, 2, 3)) -> Upload:
    """Scores of which one seed has about this reliability."""
    rng = np.random.default_rng(1)
    true = rng.normal(size=n)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["Group", "Bias", "Model", "Head id", "Seed", "Split", "PPL"])
    for axis in ("gender_and_sex", "age"):
        for seed in seeds:
            noise = rng.normal(size=n)
            for head in range(n):
                bias = 5 + np.sqrt(reliability) * true[head] + np.sqrt(1 - reliability) * noise[head]
                writer.writerow([axis, bias, model, head + 1, seed, "valid", 50 + head])
    return ("head_scores.csv", out.getvalue().encode(), "text/csv")


# --- a settled claim ---

GROUPS, TEMPLATES, EACH = 3, 6, 8  # EACH prompts of a group in a template
FALLS = {"next word": 0.8, "written": 0.6, "sampled": 0.3}


def made_settled(plan: SettledPlan, fall: Mapping[str, float] = FALLS, rise: float = 0.05) -> Settled:
    """What a set does that leaves `1 - fall` of the gap by each measure, and raises perplexity by `rise`."""
    rng = np.random.default_rng(0)
    codes = np.tile(np.arange(GROUPS), TEMPLATES * EACH)
    blocks = np.repeat(np.arange(TEMPLATES * EACH), GROUPS)
    templates = tuple(f"template {block % TEMPLATES}" for block in blocks)
    names = tuple("abc")
    wider = []
    for sample in plan.samples():
        rows, draws = {}, {}
        for name, share in fall.items():
            if not (sample.sampled if name == "sampled" else sample.written):
                continue
            noise = rng.normal(0, 0.002, (2, len(codes)))
            own = 0.1 + 0.02 * (codes - 1) * np.array([[1.0], [1.0 - share]]) + noise
            readings = 1 if name == "sampled" else 2
            rows[name] = PromptRows(np.stack([own] * readings, 1), codes, names, blocks)
            draws[name] = 0 if name == "next word" else 7
        wider.append(Wider(sample, rows, None, templates, draws, {}))
    counts = np.full(100, 64)
    sums = np.full(100, 192.0)
    nll = [Nll(sums, counts), Nll(sums + 64 * np.log1p(rise), counts)]
    return Settled(plan, (3, 17), "search", (3,), (0.08, 0.05, 0.02), perplexity_change(*nll), tuple(wider), 9)


# --- files of tasks ---


@dataclass(frozen=True)
class Question:
    """A context (or one an answer), the answers and which is right."""

    context: str | tuple[str, ...]
    answers: tuple[str, ...]
    right: int


def write_task(folder: Path, task: str, questions: Sequence[Question], bare: bool = False) -> Path:
    """The file of a task below `folder`; `bare` adds every answer after "Answer:", as some files do."""
    rows = []
    for first in (0, 1_000_000) if bare else (0,):
        for i, question in enumerate(questions):
            for idx, answer in enumerate(question.answers):
                context = question.context if isinstance(question.context, str) else question.context[idx]
                request = {"context": "Answer:" if first else context, "continuation": answer}
                label = [answer.strip()] if len(question.answers) == 1 else int(question.right)
                rows.append({"request": request, "doc_id": first + i, "idx": idx, "label": label})
    path = folder / "oe_eval_tasks" / FILES[task] / "requests.jsonl.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def write_passages(folder: Path, squad: Sequence[tuple[str, str]], coqa: Sequence[str], times: int = 2) -> None:
    """The files of SQuAD's (article, paragraph) and CoQA's passages below `folder`, with `times` questions each."""
    docs = {
        "squad/bpb_5shot": [
            {"title": title, "query": f"Title: {title}\nBackground: {text}\nQuestion: Who, {i}?\nAnswer:"}
            for title, text in squad
            for i in range(times)
        ],
        "coqa/bpb_0shot": [{"story": text, "query": f"Passage: {text}"} for text in coqa for _ in range(times)],
    }
    for name, rows in docs.items():
        path = folder / "oe_eval_tasks" / name / "requests.jsonl.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("".join(json.dumps({"doc": row}) + "\n" for row in rows).encode()))


def tiny_passages(folder: Path, n: int = 24) -> None:
    """Passages of 5 to 90 tokens in words that the tiny tokenizer knows."""
    texts = [tiny_text(5 + 17 * (i % 6), 1000 + i) for i in range(2 * n)]
    write_passages(folder, [(f"article {i // 3}", text) for i, text in enumerate(texts[:n])], texts[n:])


def tiny_questions(n: int, answers: int, seed: int = 0) -> list[Question]:
    """Questions in words that the tiny tokenizer knows; the answers have 1 to 4 tokens."""
    found = []
    for i in range(n):
        at = 100 * seed + 10 * i
        words = [tiny_text(2 + (i + j) % 4, at + j + 1).split(" ", 1)[1].rstrip(".") for j in range(answers)]
        found.append(Question(tiny_text(5 + i % 7, at).rstrip("."), tuple(f" {w}" for w in words), i % answers))
    return found

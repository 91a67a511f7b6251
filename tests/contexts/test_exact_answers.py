"""Exact answers against enumeration of every text, passes without a tree, samples and each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from fasp_core.forward.branching import Branching
from fasp_core.model.language_model import LanguageModel
from fasp_core.studies.answers import exact
from fasp_core.studies.answers.drawing import spread, systematic
from fasp_core.studies.answers.exact import ExactConfig, Sampling, Tree, grow, token_classes
from fasp_core.studies.answers.reading import Reader, same
from tests.support.numbered import numbered_lm, padded

CHATS = ["We the house for red My$", "We the house for blue My$", "We house for the My$"]
WHOLE = ExactConfig(covered=1 - 1e-9, nodes=10_000, draws=1)


def chats(lm: LanguageModel) -> list[tuple[str, list[int]]]:
    return [(text, lm.tokens(text)) for text in CHATS]


@torch.no_grad()
def enumerated(lm: LanguageModel, chat: Sequence[int], reader: Reader, tokens: int) -> dict[float, float]:
    """{number, -1 for none: probability} over every text of so many tokens or up to its end."""
    found: dict[float, float] = {}
    stops = lm.stops

    def put(ids: Sequence[int], mass: float) -> None:
        value = reader.value("$" + lm.tokenizer.decode(list(ids), skip_special_tokens=True))
        found[-1.0 if value != value else value] = found.get(-1.0 if value != value else value, 0.0) + mass

    level: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    for depth in range(tokens):
        rows = torch.tensor([[*chat, *ids] for ids, _ in level])
        p = (lm.model(rows).logits[:, -1].double() / 0.8).softmax(-1).numpy()
        following = []
        for (ids, mass), row in zip(level, p, strict=True):
            for token, chance in enumerate(row.tolist()):
                if token in stops or depth == tokens - 1:
                    put(ids if token in stops else (*ids, token), mass * chance)
                else:
                    following.append(((*ids, token), mass * chance))
        level = following
    return found


def by_value(tree: Tree) -> dict[float, float]:
    out: dict[float, float] = {}
    for value, mass in zip(tree.values, tree.masses, strict=True):
        out[-1.0 if value != value else value] = out.get(-1.0 if value != value else value, 0.0) + mass
    return out


def mean_of(tree: Tree) -> float:
    """Mean number, draws included, over the probability of a number."""
    values = np.array([*tree.values, *(v for _, v, _ in tree.drawn)])
    masses = np.array([*tree.masses, *(m for _, _, m in tree.drawn)])
    return float(np.nansum(np.where(np.isnan(values), 0, values) * masses))


@pytest.mark.parametrize(("seed", "tokens"), [(0, 2), pytest.param(1, 3, marks=pytest.mark.slow)])
def test_every_answer_has_the_probability_that_enumeration_gives(
    seed: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "LEAST", 0.0)  # every token is told apart
    lm = numbered_lm(seed)
    reader = Reader("dollars", "")
    for (_, ids), tree in zip(chats(lm), grow(lm, chats(lm), reader, "$", Sampling(tokens, 0.8), WHOLE), strict=True):
        expected, found = enumerated(lm, ids, reader, tokens), by_value(tree)
        assert tree.left < 1e-6
        assert sum(tree.masses) == pytest.approx(1, abs=1e-6)
        for value in expected.keys() | found.keys():
            assert found.get(value, 0.0) == pytest.approx(expected.get(value, 0.0), abs=2e-6), value


def test_tokens_that_are_not_told_apart_are_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands for a class, each of its tokens leaves the number that the class has."""
    monkeypatch.setattr(exact, "LEAST", 0.01)
    lm, reader = numbered_lm(), Reader("dollars", "")
    classes, seen = token_classes(lm), 0
    for tree in grow(lm, chats(lm), reader, "$", Sampling(4, 0.8), ExactConfig(nodes=60)):
        for node in tree.nodes:
            for kind, leaf in enumerate(node.classes):
                for token in () if leaf is None else np.flatnonzero(classes == kind).tolist():
                    said = "$" + lm.tokenizer.decode([*node.ids, token], skip_special_tokens=True)
                    if token not in (*node.told, *lm.stops):
                        seen += 1
                        assert reader.settled(said), said
                        assert same(reader.value(said), tree.values[leaf]), said
    assert seen > 20


@pytest.mark.parametrize("nodes", [1, 9])
def test_tokens_beyond_the_embedding_change_no_answer(nodes: int) -> None:
    config, reader, sampling = ExactConfig(nodes=nodes, draws=8), Reader("dollars", ""), Sampling(3, 0.8)
    expected = grow(numbered_lm(), chats(numbered_lm()), reader, "$", sampling, config)
    lm = padded(numbered_lm())
    assert max(lm.stops) == len(lm.tokenizer) - 1 == lm.model.get_output_embeddings().weight.shape[0]
    found = grow(lm, chats(lm), reader, "$", sampling, config)
    told, untold = (str([(t.texts, t.values, t.masses, t.drawn) for t in trees]) for trees in (found, expected))
    assert told == untold


@pytest.mark.parametrize("config", [ExactConfig(nodes=1, draws=3), ExactConfig(nodes=9), ExactConfig(nodes=30)])
def test_masses_sum_to_1_whatever_the_limit(config: ExactConfig) -> None:
    lm = numbered_lm()
    for tree in grow(lm, chats(lm), Reader("dollars", ""), "$", Sampling(5, 0.6), config):
        assert len(tree.nodes) <= config.nodes
        left = sum(n.mass for n in tree.open) + sum(n.lost for n in tree.nodes)
        assert tree.left == pytest.approx(left, abs=1e-6)
        assert sum(tree.masses) + left == pytest.approx(1, abs=1e-6)
        assert len(tree.drawn) >= config.draws
        assert sum(mass for _, _, mass in tree.drawn) == pytest.approx(tree.left, abs=1e-6)
        assert len(tree.origins) == len(tree.drawn)
        assert all(text.startswith(origin) for origin, (text, _, _) in zip(tree.origins, tree.drawn, strict=True))


def test_the_likeliest_texts_are_run_first() -> None:
    lm = numbered_lm()
    monkey = ExactConfig(nodes=1 + exact.WIDTH)
    (tree,) = grow(lm, chats(lm)[:1], Reader("dollars", ""), "$", Sampling(5, 0.6), monkey)
    reader = Reader("dollars", "")
    worth = {id(n): n.mass * reader.doubt("$" + lm.tokenizer.decode(n.ids)) for n in (*tree.nodes[1:], *tree.open)}
    least = min(worth[id(n)] for n in tree.nodes[1:])
    assert all(worth[id(n)] <= least + 1e-12 for n in tree.open if len(n.ids) == 1)


def test_draws_for_the_rest_leave_the_mean_as_it_is() -> None:
    lm = numbered_lm()
    reader, sampling = Reader("dollars", ""), Sampling(2, 0.8)
    truth = mean_of(grow(lm, chats(lm)[:1], reader, "$", sampling, WHOLE)[0])
    found = np.array(
        [
            mean_of(grow(lm, chats(lm)[:1], reader, "$", sampling, ExactConfig(nodes=3, draws=8, seed=seed))[0])
            for seed in range(80)
        ]
    )
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean() - truth) < 4 * error + 0.02 * truth  # numbers that are nearly known take ratios of others
    assert error > 0


@pytest.mark.parametrize("kind", ["llama", "gpt_neo"])
def test_a_tree_gives_the_states_of_whole_texts(kind: str) -> None:
    lm = numbered_lm(kind=kind)
    ids = [ids for _, ids in chats(lm)[:2]]
    branching = Branching(lm, ids, 6)
    assert torch.allclose(branching.begin(), whole(lm, ids), atol=1e-5)
    first = branching.grow([[-1, -1], [-1]], [[3, 4], [5]])
    assert torch.allclose(first, whole(lm, [[*ids[0], 3], [*ids[0], 4], [*ids[1], 5]]), atol=1e-5)
    assert branching.width == 2
    later = branching.grow([[1], [0, -1, 0]], [[7], [8, 9, 10]])
    rows = [[*ids[0], 4, 7], [*ids[1], 5, 8], [*ids[1], 9], [*ids[1], 5, 10]]
    assert torch.allclose(later, whole(lm, rows), atol=1e-5)


@torch.no_grad()
def whole(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.stack([lm.model.base_model(torch.tensor([list(r)])).last_hidden_state[0, -1] for r in rows])


def test_systematic_draws_follow_the_masses() -> None:
    masses = [0.5, 0.0, 0.25, 0.25]
    counts = np.zeros(4)
    for offset in np.linspace(0, 0.999, 200):
        picked = systematic(masses, 8, float(offset))
        assert picked == sorted(picked)
        counts += np.bincount(picked, minlength=4)
    assert counts / counts.sum() == pytest.approx(masses, abs=0.01)


def test_texts_that_are_nearly_known_take_the_ratio_of_their_part() -> None:
    known = [("$2.", 2.0, 0.3), ("$3.", 3.0, 0.3), ("$20.", 20.0, 0.4)]
    found = spread(known, [2.5, 22.0], [2.0, 20.0], 2)
    assert [text for text, _, _ in found] == ["$2.", "$3.", "$3.", "$20."]
    assert [value for _, value, _ in found] == pytest.approx([2.5, 3.75, 3.3, 22.0])
    assert [mass for _, _, mass in found] == pytest.approx([0.3, 0.2, 0.1, 0.4])

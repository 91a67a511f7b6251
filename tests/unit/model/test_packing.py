"""Packs against passes of one prompt each, and against sets of beginnings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.forward.recorded_pass import ResumablePass, final_hidden
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.loading import wrap
from fasp_core.model.packing import Pack, encode, pack, pack_equal, pack_trees, tree_mask, trees_fit
from fasp_core.model.spec import ModelSpec
from tests.support.ggufs import drawn
from tests.support.tiny import KINDS, tiny_config, tiny_lm, tiny_tokenizer

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=30)


def places(packs: list[Pack], n: int) -> dict[int, tuple[Pack, list[int]]]:
    found = {int(i): (p, reads) for p in packs for i, reads in zip(p.prompts, p.reads.tolist(), strict=True)}
    assert sorted(found) == list(range(n))
    return found


@given(ROWS, st.integers(1, 20))
def test_trees_hold_each_beginning_once_and_lead_back_to_every_prompt(rows: list[list[int]], size: int) -> None:
    packs = pack_trees(rows, 1, size)
    for i, (tree, (read,)) in places(packs, len(rows)).items():
        path, at = [], read
        while at >= 0:
            path.append(int(tree.ids[0, at]))
            at = int(tree.parents[at])
        assert path[::-1] == rows[i]
    for tree in packs:
        beginnings = {tuple(rows[i][: t + 1]) for i in tree.prompts for t in range(len(rows[i]))}
        assert tree.ids.shape == (1, len(beginnings))
        first = len(rows[int(tree.prompts[0])])
        assert len(beginnings) <= max(size, first + first // 4)


@given(ROWS)
def test_a_token_sees_its_beginning_and_nothing_else(rows: list[list[int]]) -> None:
    for tree in pack_trees(rows, 1, 12):
        depth, seen = tree_mask(tree.parents)
        for t in range(len(tree.parents)):
            line, at = [], t
            while at >= 0:
                line.append(at)
                at = int(tree.parents[at])
            assert set(np.flatnonzero(seen[t])) == set(line)
            assert int(depth[t]) == len(line) - 1


@given(st.lists(st.integers(2, 8), min_size=1, max_size=30), st.integers(1, 20), st.integers(1, 2))
def test_equal_packs_hold_every_prompt_once_and_no_padding(lengths: list[int], size: int, steps: int) -> None:
    rows = [[100 * i + t for t in range(length)] for i, length in enumerate(lengths)]
    packs = pack_equal(rows, steps, size)
    for i, (equal, reads) in places(packs, len(rows)).items():
        assert equal.ids.reshape(-1)[reads].tolist() == rows[i][-steps:]
        assert equal.ids.numel() <= size or len(equal.ids) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_those_of_separate_passes(kind: str) -> None:
    lm = tiny_lm(kind)
    rng = np.random.default_rng(0)
    rows = [[1, *rng.integers(0, 3, rng.integers(1, 7)).tolist()] for _ in range(40)]
    packs = pack(lm, rows, 2)
    trees = packs[0].parents is not None
    assert trees == trees_fit(lm, max(map(len, rows))) == (kind not in ("gpt_neo", "mistral", "gemma3_text"))
    with masked(lm, PruneSet.of([(0, 1), (1, 2)])):
        hidden = [final_hidden(lm, p) for p in packs]
        for p, h in zip(packs, hidden, strict=True):
            flat = h.reshape(-1, h.shape[-1])
            for i, reads in zip(p.prompts, p.reads, strict=True):
                alone = final_hidden(lm, torch.tensor([rows[i]]))[0, -2:]
                torch.testing.assert_close(flat[reads], alone, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "gpt_neox"])
def test_a_tree_resumes_from_any_layer(kind: str) -> None:
    lm = tiny_lm(kind, n_layers=3)
    rows = [[1, 2, i] for i in range(8)] + [[1, 3, i] for i in range(8)]
    (tree,) = pack_trees(rows)
    for layer in range(3):
        staged = ResumablePass(lm, tree)
        while staged.layer < layer:
            staged.advance()
        with masked(lm, PruneSet.of([(layer, 1)])), torch.no_grad():
            torch.testing.assert_close(staged.resume(), final_hidden(lm, tree), atol=1e-6, rtol=0)
        torch.testing.assert_close(staged.base, final_hidden(lm, tree), atol=1e-6, rtol=0)


def test_a_window_shorter_than_a_prompt_forbids_trees() -> None:
    lm = tiny_lm("mistral")  # its window is 4 tokens
    assert trees_fit(lm, 4)
    assert not trees_fit(lm, 5)


def test_rotary_embeddings_that_go_by_the_longest_prompt_forbid_trees() -> None:
    """Phi-3's factors for long texts hold for all that share a pass; alone, a short prompt has those for short ones."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 6.0, 9.0]}
    rope |= {"rope_theta": 10000.0, "original_max_position_embeddings": 6, "partial_rotary_factor": 1.0}
    config = tiny_config("phi3")
    config = type(config).from_dict(
        {**config.to_dict(), "rope_parameters": rope, "original_max_position_embeddings": 6}
    )
    lm = wrap(drawn(config), tiny_tokenizer(), ModelSpec("tiny", device="cpu"), "tiny")
    assert trees_fit(lm, 6)
    assert not trees_fit(lm, 7)
    rows = [[2, 9, 10], [2, 9, 11, 12, 13, 14, 15, 16], [2, 9, 10, 11]]
    for part in pack(lm, rows):
        hidden = final_hidden(lm, part).flatten(0, 1)
        for i, reads in zip(part.prompts, part.reads, strict=True):
            alone = lm.model.model(torch.tensor([rows[i]])).last_hidden_state[0, -1]
            torch.testing.assert_close(hidden[reads[-1]], alone, atol=1e-5, rtol=0)


def test_shared_beginnings_are_worth_it() -> None:
    rows = [[*range(8), i, 9] for i in range(50)]
    assert sum(p.ids.numel() for p in pack_trees(rows)) == 8 + 2 * 50
    assert sum(p.ids.numel() for p in pack_equal(rows)) == 10 * 50


def test_prompts_are_parted_where_they_share_little() -> None:
    """Three questions with four answers each: none runs twice, though half of the next one had room."""
    rows = [[*range(100 * q, 100 * q + 20), 1000 + a, 9] for q in range(3) for a in range(4)]
    assert [sorted(p.prompts) for p in pack_trees(rows, 1, 44)] == [[4 * q + a for a in range(4)] for q in range(3)]
    assert [len(p.prompts) for p in pack_trees(rows, 1, 60)] == [8, 4]
    long = [[*range(60), a] for a in range(4)]
    assert [p.ids.shape[1] for p in pack_trees(long, 1, 44)] == [64], "longer than a pack: its answers stay with it"


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match=r"The prompt 2 of 3 .* holds no token"):
        encode(tiny_lm("llama"), ["I met", "", "We"])

"""Files of prune sets: what is written is read back, and any other bytes are refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.console import to_json
from fasp_core.errors import InputError
from fasp_core.heads import prune_files
from fasp_core.heads.prune_set import MAX_PARTS, PruneSet
from fasp_core.heads.selection import HeadScores, Selection, select
from fasp_core.report.gather import by_hand_to
from fasp_core.scoring.manual_edits import ManualEdits, apply_manual_edits
from fasp_core.scoring.score_files import read_prune_set

LAYERS, HEADS = 3, 4
SHAPE = (LAYERS, HEADS)

heads = st.frozensets(st.tuples(st.integers(0, LAYERS - 1), st.integers(0, HEADS - 1)))
neurons = st.frozensets(st.tuples(st.integers(0, LAYERS - 1), st.integers(0, 5000)), max_size=6)
sets = st.builds(PruneSet, heads, neurons)


def chosen(alpha: float = 0.25, seed: int = 0) -> Selection:
    rng = np.random.default_rng(seed)
    scores = HeadScores(*SHAPE, z_ppl=rng.normal(size=12), z_bias=rng.normal(size=12))
    return select(scores, "fasp", 0.3, alpha)


@given(parts=sets, alpha=st.sampled_from((0.0, 0.25, 0.5)), seed=st.integers(0, 20))
@settings(deadline=None)
def test_what_is_written_is_read_back(parts: PruneSet, alpha: float, seed: int) -> None:
    """As a document and as text, whatever was changed by hand; and the changes lead from the choice to the set."""
    selection = chosen(alpha, seed)
    document = prune_files.document(selection, parts, model="m", axis="age", reading="neutral")
    found = prune_files.read((to_json(document) + "\n").encode(), "set.json", SHAPE)
    assert (found.parts, found.shape) == (parts, SHAPE)
    assert (found.model, found.axis, found.reading, found.method) == ("m", "age", "neutral", "fasp")
    assert prune_files.read((parts.format() + "\n").encode(), "set.txt", SHAPE).parts == parts
    by_hand = by_hand_to(selection, parts)
    assert PruneSet.from_flat(apply_manual_edits(selection, by_hand).pruned, HEADS).heads == parts.heads
    assert not by_hand.prune & set(selection.pruned)  # none of them is idle
    assert by_hand.keep <= set(selection.pruned)
    told = " ".join(document["notes"])
    assert ("Pruned by hand" in told) == bool(by_hand.prune)
    assert ("Kept by hand" in told) == bool(by_hand.keep)


@given(parts=sets)
@settings(deadline=None, max_examples=25)
def test_the_command_line_reads_the_same(parts: PruneSet, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "set.json"
    path.write_text(to_json(prune_files.document(chosen(), parts)))
    found = read_prune_set(path)
    assert (found.parts, found.shape) == (parts, SHAPE)


def test_the_form_is_that_of_select() -> None:
    document = prune_files.document(chosen())
    assert [*document] == [
        *("heads", "prune_set", "k", "requested_k", "critical", "critical_heads", "n_heads", "shape", "method"),
        *("gamma", "alpha", "rule", "seed", "model", "axis", "reading", "notes"),
    ]
    assert document["heads"] == [list(h) for h in chosen().heads]
    assert document["k"] == document["requested_k"] == 3
    assert prune_files.document(chosen(), PruneSet.parse("L0N3"))["neurons"] == [[0, 3]]


@pytest.mark.parametrize(
    "content",
    [
        "L0H3, L2H1-2\n",
        '{"heads": [[0, 3], [2, 1], [2, 2]]}',
        '{"prune_set": "L0H3,L2H1-2"}',
        "[[0, 3], [2, 1], [2, 2]]",
    ],
)
def test_every_form_is_read(content: str) -> None:
    assert prune_files.read(content.encode(), "set") == prune_files.PruneFile(PruneSet.parse("L0H3,L2H1,L2H2"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"the first head", "'the' is not a head"),
        (b"{", "holds no prune set"),
        (b"\xff\xfe\x00", "is not UTF-16"),
        (b"[" * 5000, "holds no prune set"),
        (b'{"heads": [[0, -1]]}', "holds no prune set"),
        (b'{"heads": [[0]]}', "holds no prune set"),
        (b'{"k": 3}', "holds no prune set"),
        (b'{"heads": [[0, 1]], "shape": 3}', "holds no prune set"),
        (b'{"heads": [[0, 1.0]]}', "holds no prune set"),
        (b'{"heads": [[0, true]]}', "holds no prune set"),
        (b'{"heads": 3}', "holds no prune set"),
        (b'{"heads": {"0": 1}}', "holds no prune set"),
        (b'{"heads": [[0, 1]], "neurons": [[0]]}', "holds no prune set"),
        (b'{"heads": [[0, 1]], "shape": [3]}', "holds no prune set"),
        (b"9" * 6000, "is not a head"),
        (b'{"heads": [[' + b"9" * 6000 + b", 1]]}", "holds no prune set"),
        (b" " * 1_000_001, "larger than 1 MB"),
        (b"L0H4", "L0H4 does not exist: this model has layers 0 to 2 with heads 0 to 3"),
        (b'{"heads": [[7, 0]]}', "L7H0 does not exist"),
        (b"L9N1", "L9N1 does not exist: this model has layers 0 to 2"),
        (b'{"heads": [[0, 1]], "shape": [12, 12]}', "chosen for 12 layers of 12 heads, and this model has 3 of 4"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(content: bytes, words: str) -> None:
    with pytest.raises(InputError) as error:
        prune_files.read(content, "mine.json", SHAPE)
    said = str(error.value)
    assert "mine.json" in said
    assert words in said
    assert "\n" not in said


@pytest.mark.timeout(60)  # written out, they would take hours
def test_a_short_text_cannot_name_billions() -> None:
    text = ",".join(f"L{layer}N0-999999" for layer in range(9999))
    with pytest.raises(InputError, match=f"More than {MAX_PARTS:,}"):
        prune_files.read(text.encode(), "set.txt")


def test_half_characters_can_be_shown() -> None:
    assert prune_files.read(b'{"heads": [], "model": "\\ud800"}', "x").model == "?"


def test_a_choice_by_hand_alone() -> None:
    assert by_hand_to(chosen(0.0), PruneSet.parse("L1H1")) == ManualEdits(frozenset({5}), frozenset())


def test_no_path_is_followed(tmp_path: Path) -> None:
    """The pure reader takes a name for messages alone."""
    (tmp_path / "there").write_text("L0H1")
    with pytest.raises(InputError):
        prune_files.read(str(tmp_path / "there").encode(), "name")


def test_a_file_keeps_gains() -> None:
    parts = PruneSet.parse("L0H1,L1H0*0.4,L1H2*1.25")
    scores = HeadScores(2, 3, np.arange(6.0), np.arange(6.0))
    written = json.dumps(prune_files.document(select(scores, "fasp", 0.3, 0.2), parts)).encode()
    assert prune_files.read(written, "x.json", (2, 3)).parts == parts
    assert prune_files.read(parts.format().encode(), "x.txt").parts == parts
    for bad in ([[0, 1, 2.0]], [[0, 1]], [["a", 1, 0.5]], 3):
        with pytest.raises(InputError):
            prune_files.read(json.dumps({"heads": [], "gains": bad}).encode(), "x.json")
    with pytest.raises(InputError, match="L0H3 is both removed and scaled: name it once"):
        prune_files.read(json.dumps({"heads": [[0, 3]], "gains": [[0, 3, 0.5]]}).encode(), "x.json")

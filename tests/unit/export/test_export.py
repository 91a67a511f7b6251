"""The export's failures leave nothing behind; its card, its command and its plan say what was done."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from safetensors import safe_open

from fasp_core.cli.main import main
from fasp_core.compute.jobs import Cancelled, Progress
from fasp_core.errors import InputError
from fasp_core.export import card, checking, writing
from fasp_core.export.planning import plan, weights_saved
from fasp_core.export.writing import export, read_result
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.passes import NotFinite
from fasp_core.model.spec import BUILT_IN, ModelSpec
from tests.support.tiny import tiny_lm

REMOVED = PruneSet.parse("L0H0-1,L1H2-3,L1H0,L0N5")
Ran = tuple[int, str, str]


@pytest.fixture
def lm() -> LanguageModel:
    return tiny_lm("llama")


def below(folder: Path) -> list[str]:
    """Everything that lies below, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# failures


def test_a_folder_in_use_is_refused_before_work_begins(lm: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for name in ("used", "file"):
        with pytest.raises(InputError, match="name another one") as raised:
            export(lm, REMOVED, tmp_path / name, lambda *_: pytest.fail("work has begun"))
        assert len(str(raised.value).splitlines()) == 1
    assert below(tmp_path) == ["file", "used", "used/mine.txt"]
    assert (tmp_path / "used" / "mine.txt").read_text() == "keep"


def test_an_empty_folder_is_filled(lm: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(lm, REMOVED, tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out" / "model.safetensors").is_file()


def wrong_columns(state: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A head's part of one output projection is not quite what it was."""

    def broken(*args: Any) -> dict[str, Any]:
        found = state(*args)
        name = next(name for name in found if name.endswith("o_proj.weight"))
        found[name] = found[name] + 1e-3
        return found

    return broken


def test_an_export_that_differs_is_dropped(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "smaller_state", wrong_columns(writing.smaller_state))
    with pytest.raises(InputError, match="logits differ from the masked model's"):
        export(lm, REMOVED, tmp_path / "new" / "out")
    assert below(tmp_path) == []


def test_logits_that_are_no_numbers_are_a_difference(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "largest_difference", lambda *_: float("nan"))
    with pytest.raises(InputError, match="logits differ"):
        export(lm, REMOVED, tmp_path / "out")
    assert below(tmp_path) == []
    broken, ids = tiny_lm("llama"), []
    broken.model.lm_head.weight.data[0, 0] = float("nan")
    monkeypatch.undo()
    found = checking.largest_difference(lm, broken.model, REMOVED, [[1, 2], [3]], lambda *_: ids.append(1))
    assert found != found
    assert len(ids) == 1  # the first prompt says it
    with pytest.raises(NotFinite, match="logits that an export is checked by, after the last block, with L0H0"):
        checking.largest_difference(broken, lm.model, REMOVED, [[1, 2]], lambda *_: None)


def test_where_float32_does_not_suffice_float64_decides(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits so large that the order of sums shows in float32; in float64 the same export is exact."""
    lm.model.lm_head.weight.data *= 1e4
    removed = PruneSet.of([], [(layer, unit) for layer in range(2) for unit in range(0, 30 + layer)])
    found = export(lm, removed, tmp_path / "out").as_dict()["check"]
    assert found["dtype"] == "float64"
    assert found["difference"] <= checking.LIMIT < found["float32"]
    assert "In float32 it is" in (tmp_path / "out" / "README.md").read_text()
    monkeypatch.setattr(writing, "smaller_state", wrong_columns(writing.smaller_state))
    with pytest.raises(InputError, match="logits differ from the masked model's"):
        export(lm, removed, tmp_path / "wrong")
    assert os.listdir(tmp_path) == ["out"]


def test_a_lost_weight_is_an_error(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would fill it with random numbers."""
    state = writing.smaller_state

    def lost(*args: Any) -> dict[str, Any]:
        found = state(*args)
        del found["model.layers.1.mlp.up_proj.weight"]
        return found

    monkeypatch.setattr(writing, "smaller_state", lost)
    with pytest.raises(InputError, match="missing keys"):
        export(lm, REMOVED, tmp_path / "out")
    assert below(tmp_path) == []


@pytest.mark.parametrize("at", [1, 4, 8, 14, 18])
def test_a_cancelled_export_leaves_nothing(lm: LanguageModel, tmp_path: Path, at: int) -> None:
    seen: list[str] = []
    progress = Progress(lambda done, total, text: seen.append(text), lambda: len(seen) >= at)
    with pytest.raises(Cancelled):
        export(lm, REMOVED, tmp_path / "deep" / "out", progress)
    assert len(seen) == at
    assert below(tmp_path) == []
    assert not any(m._forward_pre_hooks for m in lm.model.modules())


def test_a_full_disk_leaves_nothing(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(card, "text", full)  # the last file
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\): make room"):
        export(lm, REMOVED, tmp_path / "out")
    assert below(tmp_path) == []
    monkeypatch.undo()
    monkeypatch.setattr(checking, "weight_bytes", lambda _: 10**18)
    with pytest.raises(InputError, match="are needed and"):
        export(lm, REMOVED, tmp_path / "out", lambda *_: pytest.fail("work has begun"))
    assert below(tmp_path) == []


def test_what_a_killed_process_left_is_removed_after_a_day(lm: LanguageModel, tmp_path: Path) -> None:
    names = [f".out.{'0' * 32}.tmp", f".out.{'1' * 32}.tmp", f".other.{'0' * 32}.tmp", ".out.tmp"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        if "1" not in name:
            os.utime(tmp_path / name, (0, 0))
    export(lm, REMOVED, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == sorted(["out", *names[1:]])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that this user cannot write")
def test_a_folder_that_cannot_be_written(lm: LanguageModel, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="cannot be written"):
            export(lm, REMOVED, tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


def test_what_is_not_in_the_model_is_refused(lm: LanguageModel, tmp_path: Path) -> None:
    for text in ("L0H4", "L2H0", "L0N48"):
        with pytest.raises(InputError, match="does not exist"):
            export(lm, PruneSet.parse(text), tmp_path / "out")
    assert below(tmp_path) == []


# what is said


def test_the_folder_says_what_it_is(lm: LanguageModel, tmp_path: Path) -> None:
    found = export(lm, REMOVED, tmp_path / "out")
    d = found.as_dict()
    assert json.loads(json.dumps(d)) == read_result(tmp_path / "out") == d
    assert (d["gone"]["parts"], d["zeroed"]["parts"]) == ("L0H0,L0H1,L1H2,L1H3", "L1H0,L0N5")
    assert d["shape"]["before"] == {"heads": 4, "kv_heads": 2, "neurons": 48}
    assert d["shape"]["after"] == {"heads": 2, "kv_heads": 1, "neurons": 48}
    assert (d["weights"], d["provenance"]["weights"]) == ("tiny:llama:2:0",) * 2
    assert d["size"]["before"]["bytes"] == 4 * lm.n_parameters
    assert 0 < d["tokens_per_second"]["low"] <= d["tokens_per_second"]["high"]
    # every q, k, v row and output column of what is zeroed: one head alone in its group loses q and output only
    zeros = 2 * 8 * 32 + 3 * 32
    assert d["size"]["after"]["nonzero"] == d["size"]["after"]["parameters"] - zeros
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        stored = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 (no mapping)
    assert stored == d["size"]["after"]["parameters"]
    text = (tmp_path / "out" / "README.md").read_text()
    for said in ("L1H0,L0N5", "each gets 2 of 4", "tiny:llama:2:0", d["command"], "## Limits"):
        assert said in text
    meta = ModelCard(text).data.to_dict()
    assert meta["library_name"] == "transformers"
    assert "license" not in meta
    assert "base_model" not in meta  # neither is known
    assert "could not find out" in text
    assert PruneSet.parse((tmp_path / "out" / "prune_set.txt").read_text()) == REMOVED
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("---\nlicense: mit\n---\n# A model", "mit"),
        ("---\nlicense: |\n  mit\n  base_model: evil/x\n---\n", None),
        ("---\nlicense: [mit, apache-2.0]\n---\n", None),
        ("---\n: : :\n---\n", None),
        ("no front matter", None),
        (None, None),
    ],
)
def test_the_licence_is_the_sources_or_none(lm: LanguageModel, tmp_path: Path, front: str | None, licence: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    if front is not None:
        (source / "README.md").write_text(front)
    lm.spec = ModelSpec(str(source))
    assert card.licence(lm) == licence
    d = export(lm, REMOVED, tmp_path / "out").as_dict()
    assert d["licence"] == licence
    assert ModelCard((tmp_path / "out" / "README.md").read_text()).data.to_dict().get("license") == licence


def test_the_built_in_model_is_named_with_its_licence(lm: LanguageModel, tmp_path: Path) -> None:
    lm.spec = ModelSpec(BUILT_IN)
    export(lm, REMOVED, tmp_path / "out")
    meta = ModelCard((tmp_path / "out" / "README.md").read_text()).data.to_dict()
    assert (meta["license"], meta["base_model"]) == ("apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct")


def test_names_stay_text_in_the_card(lm: LanguageModel, tmp_path: Path) -> None:
    """A folder's name may hold anything: it must not end the code block, begin a heading, or come to life."""
    lm.spec = ModelSpec(
        str(tmp_path / "a\n# heading ``` <b><script>x()</script><img src=x onerror=x()>[x](javascript:x)")
    )
    text_of = export(lm, REMOVED, tmp_path / "out ``` x").as_dict()
    text = card.text(text_of)
    assert text.count("```") == 4
    assert "\n# heading" not in text
    rendered = MarkdownIt("commonmark", {"html": True}).render(text)
    assert not re.search(r"<(script|img|b>)|href=.javascript", rendered)


def test_the_command_repeats_the_export(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: lm)
    monkeypatch.chdir(tmp_path)
    many = PruneSet.of([(0, 0), (1, 1)], [(layer, i) for layer in range(2) for i in range(0, 48, 2)])
    for removed, limit in ((REMOVED, 2000), (many, 100)):
        monkeypatch.setattr(card, "MAX_COMMAND", limit)
        first = export(lm, removed, tmp_path / f"first{limit}").as_dict()
        argv = shlex.split(first["command"])
        assert argv[:3] == ["python", "-m", "fasp_core"]
        if limit == 100:
            assert "--prune-set" in argv
            monkeypatch.chdir(tmp_path / f"first{limit}")  # where the list lies
        argv[argv.index("--out") + 1] = str(tmp_path / f"again{limit}")
        assert main(argv[3:]) == 0
        again = read_result(tmp_path / f"again{limit}")
        assert again is not None
        assert again["prune_set"] == first["prune_set"] == removed.format()
        weights = [(tmp_path / f"{name}{limit}" / "model.safetensors").read_bytes() for name in ("first", "again")]
        assert weights[0] == weights[1]


def test_settings_of_generation_that_cannot_be_saved_plainly(lm: LanguageModel, tmp_path: Path) -> None:
    """Some released models carry a temperature without sampling, which transformers loads and refuses to save."""
    lm.model.generation_config.temperature = 0.5
    lm.model.generation_config.do_sample = False
    with pytest.raises(ValueError, match="invalid"):
        lm.model.generation_config.save_pretrained(tmp_path / "plain")
    export(lm, REMOVED, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["temperature"] == 0.5


def test_the_plan_foretells_what_goes(lm: LanguageModel, tmp_path: Path) -> None:
    for name, text in (("a", "L0H0-1,L1H2-3"), ("b", "L0H3,L0N1-9,L1N2-7"), ("c", "L0H0")):
        removed = PruneSet.parse(text)
        found = export(lm, removed, tmp_path / name)
        assert weights_saved(lm, plan(lm, removed)) == found.before.parameters - found.after.parameters


def test_slow_passes_are_repeated_less(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = checking.speed(lm, lm.model, lambda *_: None)
    assert (whole.repeats, whole.batch, whole.length) == (checking.REPEATS, 4, 64)
    monkeypatch.setattr(checking, "PATIENCE", 0.0)
    assert checking.speed(lm, lm.model, lambda *_: None).repeats == checking.FEWEST


# the command


@pytest.fixture
def run(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: lm)

    def call(*args: str) -> Ran:
        return main(["export", *args]), *capsys.readouterr()

    return call


def test_the_command_writes_and_tells(run: Callable[..., Ran], tmp_path: Path) -> None:
    status, out, _ = run("--heads", REMOVED.format(), "--out", str(tmp_path / "out"), "--json", "--model", "tiny")
    assert status == 0
    assert json.loads(out) == read_result(tmp_path / "out")
    status, out, _ = run("--heads", REMOVED.format(), "--out", str(tmp_path / "more"), "--model", "tiny")
    assert status == 0
    for said in (
        "physically gone: 4 heads (L0H0,L0H1,L1H2,L1H3)",
        "only zeroed: 1 head and 1 neuron (L1H0,L0N5)",
        "each gets 2 of 4",
        "tokens read a second",
        "its logits differ from those of the whole model with the same parts masked by at most",
        f"wrote {tmp_path / 'more'}",
    ):
        assert said in out


def test_the_command_reads_what_select_writes(run: Callable[..., Ran], tmp_path: Path) -> None:
    file = tmp_path / "heads.json"
    file.write_text(json.dumps({"heads": [[0, 1], [1, 3]], "prune_set": "L0H1,L1H3", "shape": [2, 4]}))
    status, out, _ = run("--prune-set", str(file), "--out", str(tmp_path / "out"), "--json", "--model", "tiny")
    assert status == 0
    assert json.loads(out)["prune_set"] == "L0H1,L1H3"
    file.write_text(json.dumps({"heads": [[0, 1]], "shape": [3, 4]}))
    status, out, error = run("--prune-set", str(file), "--out", str(tmp_path / "other"), "--model", "tiny")
    assert (status, out) == (2, "")
    assert "was chosen for 3 layers of 4 heads" in error
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give either --heads or --prune-set"),
        (("--heads", "L0H1", "--prune-set", "x"), "give either --heads or --prune-set"),
        (("--heads", "L9H9", "--model", "tiny"), "L9H9 does not exist"),
        (("--heads", "L40H1"), "L40H1 does not exist: this model has layers 0 to 29"),
        (("--heads", "all"), "is not a head"),
        (("--prune-set", "none.json"), "cannot be read"),
    ],
)
def test_what_the_command_refuses(run: Callable[..., Ran], tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    status, out, error = run(*args, "--out", str(tmp_path / "out"))
    assert (status, out) == (2, "")
    assert len(error.strip().splitlines()) == 1
    assert words in error
    assert below(tmp_path) == []


def test_the_folder_of_nobody_is_a_name_like_any_other(
    run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--heads", "L0H1", "--out", "~nobody-here/x", "--model", "tiny")[0] == 0
    assert read_result(tmp_path / "~nobody-here" / "x") is not None


def test_the_home_folder_is_looked_at_before_loading(
    run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: pytest.fail("a model is loaded"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").write_text("keep")
    status, _, error = run("--heads", "L0H1", "--out", "~")
    assert status == 2
    assert f"'{tmp_path}' is there already" in error


def test_the_command_refuses_a_folder_in_use_before_loading(
    run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: pytest.fail("a model is loaded"))
    (tmp_path / "mine").write_text("keep")
    status, _, error = run("--heads", "L0H1", "--out", str(tmp_path))
    assert status == 2
    assert "name another one" in error

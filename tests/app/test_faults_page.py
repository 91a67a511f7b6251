"""The app on a cache that cannot be written or is gone, and with a model that does not fit or gives no numbers."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from fasp_core.errors import InputError
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.memory import OutOfMemory
from fasp_core.model.passes import NotFinite
from fasp_core.scoring import entries
from fasp_core.storage.store import Store
from pages.backend import folders
from pages.backend.engine import engine
from tests.support.fakes import Studio, made_up_lm
from tests.support.running import AXIS, exploring, metric, opened, press, run, said, texts

EMPTY = "First comes a preview from gradients"  # what stands where there are no scores


@pytest.fixture
def studio(studio: Studio) -> Studio:
    studio.at_once()
    return studio


def test_scores_that_cannot_be_kept_are_shown(studio: Studio, tmp_cache: Path) -> None:
    (tmp_cache / "scores").write_text("a file where a folder should be")
    at = opened()
    assert "not kept" not in texts(at)
    press(at, "Score all heads")
    run(at)
    said = [w.value for w in at.warning if "not kept" in w.value]
    assert len(said) == 1
    assert f"The cache folder {tmp_cache} cannot be written" in said[0]
    assert "FASP_CACHE" in said[0]
    assert EMPTY not in texts(at)
    assert not [e.value for e in at.error]
    other = opened()  # another reader sees the same
    assert EMPTY not in texts(other)
    (tmp_cache / "scores").unlink()
    Store().keep("experiments", {"a": 1})  # the next result
    run(at)
    assert "not kept" not in texts(at)
    lm = made_up_lm()
    assert Store().path(entries.KIND, entries.bias_key(BiasConfig(AXIS), lm.id)).is_dir()


def test_a_cache_that_is_deleted_under_the_app(studio: Studio, tmp_cache: Path) -> None:
    studio.add_scores(AXIS)
    at = opened()
    assert EMPTY not in texts(at)
    shutil.rmtree(tmp_cache)
    run(at)  # what was read is in memory
    assert EMPTY not in texts(at)
    engine().results.tables.clear()
    run(at)
    assert EMPTY in texts(at)
    press(at, "Score all heads")
    run(at)
    assert EMPTY not in texts(at)
    assert list((tmp_cache / "scores").iterdir())


@pytest.mark.parametrize(
    "error",
    [OutOfMemory("There is not enough memory on cuda: take a smaller model."), NotFinite("x gave NaN", "use float32")],
)
def test_what_a_model_cannot_do_is_one_sentence(studio: Studio, error: InputError) -> None:
    studio.add_scores(AXIS)
    studio.error = error
    at = opened()
    run(at)
    assert str(error) in [e.value for e in at.error]


def test_an_upload_that_cannot_be_kept(studio: Studio, tmp_cache: Path) -> None:
    (tmp_cache / "uploads").write_text("a file where a folder should be")
    with pytest.raises(InputError, match=r"cannot be written .*: make room there, or name another folder"):
        folders.keep_upload(b"text,group\n", "mine.csv")


def test_a_measurement_that_fails(studio: Studio) -> None:
    studio.add_scores(AXIS)
    studio.error = InputError("The prompt 3 of 90 holds no token: write a word.")
    at = exploring()
    assert [e.value for e in at.error] == [str(studio.error)]
    assert metric(at, "Perplexity").value.startswith("≈")  # the estimate stays

    secret = "/home/someone/token"
    studio.error = RuntimeError(f"could not read {secret}")
    press(at, "again main")
    (error,) = at.error
    assert "RuntimeError" in error.value
    assert secret not in said(at)

    studio.error = None
    press(at, "again main")
    assert not at.error
    assert "→" in metric(at, "Perplexity").value


def test_the_terminal_shows_what_the_page_does_not(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    studio.add_scores(AXIS)
    studio.error = RuntimeError("some detail")
    with caplog.at_level(logging.ERROR):
        at = exploring()
    assert "the terminal shows its details" in at.error[0].value
    assert "some detail" in caplog.text
    assert "Traceback" in caplog.text

"""The command line with a hub, in a process of its own: what it prints, and whom it asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hub import Hub, serving
from tests.support.tiny import tiny_text

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, sys
from fasp_core.cli.main import main
for line in sys.stdin:
    print("status", main(json.loads(line)), flush=True)
    print("end", file=sys.stderr, flush=True)
"""


@pytest.mark.slow  # tests beside this one ask the same of the functions
def test_two_models_a_scorer_and_refusals_ask_the_hub_alone(
    files: dict[str, dict[str, bytes]], folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(tiny_text(400))
    people = ("man", "woman", "child", "friend", "person", "people")
    rows = [
        f"I met a {w} {p}.,{g}\n"
        for w, g in (("red", "a"), ("tall", "b"), ("old", "a"), ("young", "b"))
        for p in people
    ]
    (tmp_path / "mine.csv").write_text("text,group\n" + "".join(rows))
    with serving() as hub, serving() as world:
        one = hub.add("org/one", files["one"]).refs["main"]
        two = hub.add("org/two", files["other"]).refs["main"]
        hub.add("org/scorer", files["scorer"])
        hub.add("org/unsaid", files["unsaid"])
        hub.add("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
        asked = [
            _evaluate(tmp_path, "org/one"),
            _evaluate(tmp_path, "org/two@main", "--scorer", "org/scorer"),
            _evaluate(tmp_path, str(folders["other"]), "--scorer", str(folders["scorer"])),
            _evaluate(tmp_path, "org/pickled"),
            _evaluate(tmp_path, "org/one", "--scorer", "org/unsaid"),
        ]
        out, told = _run(asked, tmp_path, hub, world)
        assert world.asked == []  # nobody else, and no service that converts
        assert not any("pytorch_model" in a.path for a in hub.asked)
    documents = [json.loads(part[part.index("{") : part.rindex("}") + 1]) if "{" in part else None for part in out]
    first, second, folder = documents[:3]
    assert first, told[0]
    assert second, told[1]
    assert folder, told[2]
    assert second["perplexity"] == folder["perplexity"]
    assert second["readings"] == folder["readings"]
    assert first["provenance"]["weights"] == f"hub:org/one@{one}"
    assert second["provenance"]["weights"] == f"hub:org/two@{two}"
    assert first["perplexity"] != second["perplexity"]
    assert documents[3] is documents[4] is None
    assert told[3].startswith("Error: 'org/pickled' holds its weights only as pytorch_model.bin")
    assert "--scorer-reading sigmoid" in told[4]
    for trouble in told[3:]:
        assert len([line for line in trouble.splitlines() if line.startswith("Error")]) == 1


def _evaluate(folder: Path, model: str, *more: str) -> list[str]:
    sizes = [
        "--heads",
        "L0H1",
        "--prompts",
        "12",
        "--text",
        str(folder / "text.txt"),
        "--tokens",
        "80",
        "--window",
        "40",
    ]
    return ["evaluate", "--axis", str(folder / "mine.csv"), "--model", model, *sizes, *more, "--json"]


def _run(asked: list[list[str]], folder: Path, hub: Hub, world: Hub) -> tuple[list[str], list[str]]:
    """What each command prints, and what it tells; all that does not go to this machine would go to `world`."""
    mine = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "FASP_CACHE": str(folder / "cache")}
    proxies = {name: world.url for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
    here = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "OMP_NUM_THREADS": "1"}
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input="".join(json.dumps(args) + "\n" for args in asked),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**env, **mine, **proxies, **here},
        timeout=240,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    out, told = done.stdout.split("status ")[:-1], done.stderr.split("end\n")[:-1]
    assert len(out) == len(asked), done.stdout + done.stderr
    return out, told

"""The model `fasp` of lm-evaluation-harness against the harness's own model class, on the same folder of weights."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel

from fasp_core.errors import InputError
from fasp_core.tasks.harness import harness_model
from tests.support.made import tiny_questions
from tests.support.tiny import CONTEXT, HEAD_DIMS, tiny_model, tiny_text, tiny_tokenizer

KIND, HEADS = "llama", ((0, 3), (1, 0), (1, 1))
PAIRS = [
    *((str(q.context), answer) for q in tiny_questions(8, 3) for answer in q.answers),
    ("The house ", "is red"),
    ("", "The house is red"),
    (tiny_text(CONTEXT + 30), " red house"),
]
TEXTS = ["The house is red.", tiny_text(40, 1), tiny_text(2 * CONTEXT + 50, 2)]


def saved(model: PreTrainedModel, folder: Path, begun: bool) -> str:
    """A folder of weights and tokenizer, which puts a token before every text, if texts are begun."""
    model.save_pretrained(folder)
    tokenizer = deepcopy(tiny_tokenizer())
    if begun:
        tokenizer.bos_token = "<eos>"
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<eos> $A", None, [("<eos>", 1)])
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=["unpruned", "pruned", "pruned, texts begun"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The harness's model, with the heads' weights set to zero by name; and ours, with the heads masked."""
    from lm_eval.models.huggingface import HFLM

    folder, model, heads = tmp_path_factory.mktemp("harness"), tiny_model(KIND), ""
    begun = "begun" in request.param
    theirs = whole = saved(model, folder / "whole", begun)
    if "unpruned" not in request.param:
        size = HEAD_DIMS[KIND]
        for layer, head in HEADS:
            model.model.layers[layer].self_attn.o_proj.weight.data[:, head * size : (head + 1) * size] = 0
        theirs, heads = saved(model, folder / "zeroed", begun), ";".join(f"L{layer}H{head}" for layer, head in HEADS)
    ours = harness_model().create_from_arg_string(f"pretrained={whole},heads={heads}", {"batch_size": 1})
    assert ours.subject.framing.begin == ((1,) if begun else ())
    # Its cache of logits mixes up requests of one text that is parted into context and continuation at two places.
    return HFLM(pretrained=theirs, device="cpu", dtype="float32", batch_size=1, logits_cache=False), ours


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


def test_the_same_log_likelihoods_item_by_item(pair: tuple[Any, Any]) -> None:
    want, found = (side.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True) for side in pair)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in want], abs=1e-4)
    assert [greedy for _, greedy in found] == [bool(greedy) for _, greedy in want]


def test_the_same_whole_texts(pair: tuple[Any, Any]) -> None:
    requests = asked("loglikelihood_rolling", *((text,) for text in TEXTS))
    want, found = (side.loglikelihood_rolling(requests, disable_tqdm=True) for side in pair)
    assert found == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("settings", [{"max_gen_toks": 12}, {"until": ["s", "."], "max_gen_toks": 20}])
def test_the_same_words_are_written(pair: tuple[Any, Any], settings: dict[str, Any]) -> None:
    requests = asked("generate_until", *((text, {"do_sample": False, **settings}) for text in TEXTS[:2]))
    want, found = (side.generate_until(requests, disable_tqdm=True) for side in pair)
    assert found == want


def test_a_local_task_of_the_harness(pair: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    questions = tiny_questions(12, 3)
    rows = [{"question": q.context, "answers": [a.strip() for a in q.answers], "right": q.right} for q in questions]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "made_up",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{answers}}",
        "doc_to_target": "{{right}}",
        "metric_list": [{"metric": "acc"}],
    }
    found = [
        simple_evaluate(
            side, tasks=[task], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0, log_samples=True
        )
        for side in pair
    ]
    want, ours = (run["results"]["made_up"]["acc,none"] for run in found)
    assert ours == want
    assert len(found[1]["samples"]["made_up"]) == 12


def test_what_it_does_not_know_is_said(pair: tuple[Any, Any]) -> None:
    ours = pair[1]
    with pytest.raises(InputError, match="knows no argument peft"):
        harness_model()(ours.subject, peft="x")
    with pytest.raises(InputError, match="L7H0"):
        harness_model()(ours.subject, heads="L7H0")
    with pytest.raises(InputError, match="likeliest tokens only"):
        ours.generate_until(asked("generate_until", ("The", {"do_sample": True, "temperature": 1.0})))
    with pytest.raises(InputError, match="max_gen_toks lower"):
        ours.generate_until(asked("generate_until", ("The", {"max_gen_toks": 10_000})))

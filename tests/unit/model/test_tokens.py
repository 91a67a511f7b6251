"""Tokenizers of every kind: what stands around a text, what ends it, and what of a text a model cannot take."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from fasp_core.data.text import TextConfig, token_windows
from fasp_core.errors import InputError
from fasp_core.forward.attention import pattern
from fasp_core.forward.sampling import GenerationConfig, sample, sample_ids
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.measurements import perplexity_of
from fasp_core.metrics.perplexity import measure_nll, ppl_key
from fasp_core.model.architectures import positions
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import known_id, wrap
from fasp_core.model.packing import encode
from fasp_core.model.spec import ModelSpec
from fasp_core.model.tokens import continuation, framing, plain_ids, stop_ids
from fasp_core.storage.store import Store
from fasp_core.studies.contexts.audit import AuditConfig
from fasp_core.studies.contexts.audit import sample as answers
from fasp_core.studies.contexts.chats import ask
from fasp_core.studies.contexts.scenarios import Scenario, read
from fasp_core.studies.robustness.likelihood import encode_sentence
from tests.support.tiny import CONTEXT, STARTS, VOCAB, WORDS, tiny_model, tiny_text, tiny_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyzITWMY.,"
SPECIAL = ("<unk>", "<s>", "</s>", "[CLS]", "[SEP]", "<turn>")
FORMS = ("byte-level", "metaspace", "metaspace-first", "wordpiece")
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
# what a tokenizer puts around a text, as a post-processor writes it, and the ids of it
AROUND = {
    "nothing": ("$A", (), ()),
    "start": ("<s> $A", (1,), ()),
    "end": ("$A </s>", (), (2,)),
    "both": ("<s> $A </s>", (1,), (2,)),
    "cls": ("[CLS] $A [SEP]", (3,), (4,)),
    "two": ("<s> [CLS] $A", (1, 3), ()),
}


def tokenizer_of(form: str, around: str = "nothing", **named: str) -> Any:
    """A tokenizer of one kind, of letters, some words, and special tokens."""
    mark = {"byte-level": "Ġ", "wordpiece": ""}.get(form, "▁")
    words = [mark + word for word in (*WORDS, *STARTS)]
    pieces = [f"##{x}" for x in LETTERS] if form == "wordpiece" else [mark]
    vocab = {t: i for i, t in enumerate(dict.fromkeys((*SPECIAL, *LETTERS, *pieces, *words)))}
    made: Tokenizer
    if form == "wordpiece":
        made = Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
        made.normalizer = normalizers.Lowercase()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    elif form == "byte-level":
        made = Tokenizer(models.Unigram([(t, -float(i)) for t, i in vocab.items()], unk_id=0))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    else:
        scheme = "first" if form == "metaspace-first" else "always"
        made = Tokenizer(models.Unigram([(t, -float(i)) for t, i in vocab.items()], unk_id=0))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    made.add_special_tokens(list(SPECIAL))
    template = AROUND[around][0]
    used = [(t, vocab[t]) for t in SPECIAL if t in template.split()]
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", **named}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def lm_of(tokenizer: Any, kind: str = "llama", bos: str = "auto", rows: int = 0) -> LanguageModel:
    """A tiny model with as many embeddings as the tokenizer has tokens, or `rows`."""
    model = tiny_model(kind)
    size = rows or max(VOCAB, len(tokenizer))
    torch.manual_seed(0)
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.randn(size, model.config.hidden_size) / 2)
    return wrap(model.eval(), tokenizer, ModelSpec(f"tiny-{kind}", device="cpu", bos=bos), f"tiny:{kind}:{size}")


# what stands around a text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("around", AROUND)
def test_a_text_begins_as_the_tokenizer_begins_it_and_ends_as_it_ends(form: str, around: str) -> None:
    tokenizer = tokenizer_of(form, around)
    _, begin, end = AROUND[around]
    found = framing(tokenizer)
    assert (found.begin, found.end) == (begin, end)
    lm = lm_of(tokenizer)
    for text in ("the old house", "I am kind.", "zebra"):
        whole = list(tokenizer(text).input_ids)
        assert lm.encode(text) == whole[: len(whole) - len(end)]  # as it is, but for what would end it
        assert encode(lm, [text]) == [lm.encode(text)]
    assert lm.id.bos == "".join(SPECIAL[i] for i in begin)
    assert ("</s> after a text" in lm.id.rules or "[SEP] after" in lm.id.rules) == bool(end)
    assert lm.id.begun == bool(begin)


@pytest.mark.parametrize("around", AROUND)
def test_a_beginning_may_be_asked_for_and_left_out(around: str) -> None:
    tokenizer = tokenizer_of("byte-level", around)
    begin = AROUND[around][1]
    yes, no = framing(tokenizer, "yes"), framing(tokenizer, "no")
    assert yes.begin == (begin or (1,))
    assert (no.begin, no.bos) == ((), f"no {''.join(SPECIAL[i] for i in begin)}" if begin else "")
    lm = lm_of(tokenizer, bos="no")
    assert lm.encode("the") == plain_ids(tokenizer, "the")
    keys = {bos: lm_of(tokenizer, bos=bos).id.key().get("bos") for bos in ("auto", "yes", "no")}
    if begin:  # what was kept under no name at all is of another kind than any of these
        assert None not in keys.values()
        assert keys["auto"] == keys["yes"] != keys["no"]
    else:
        assert keys["auto"] == keys["no"] is None
        assert keys["yes"] == "<s>"


def test_a_beginning_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="no beginning token: leave --bos at auto"):
        framing(tiny_tokenizer(), "yes")
    with pytest.raises(InputError, match="A beginning token cannot be 'maybe': choose one of auto, yes, no"):
        ModelSpec(bos="maybe")


def test_models_that_were_begun_by_nothing_keep_their_keys() -> None:
    lm = wrap(tiny_model("llama"), tiny_tokenizer(), ModelSpec("tiny", device="cpu"), "tiny:1")
    assert lm.id.key() == {"weights": "tiny:1", "dtype": "float32"}
    built_in = known_id(ModelSpec())
    assert built_in is not None
    assert set(built_in.key()) == {"weights", "dtype"}
    assert built_in.longest == 8192
    yes = known_id(ModelSpec(bos="yes"))
    assert yes is not None
    assert (yes.key()["bos"], yes.longest) == ("<|im_start|>", 8191)
    assert known_id(ModelSpec(bos="no")) == built_in


# windows of text


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text", "opt"])
@pytest.mark.parametrize("around", ["nothing", "start", "both", "two"])
def test_the_nll_of_windows_is_the_models_own_loss_of_each(kind: str, around: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(tiny_text(150))
    tokenizer = tokenizer_of("byte-level", around)
    lm = lm_of(tokenizer, kind)
    config = TextConfig(str(path), tokens=100, window=24, stride=24)
    ids, begin = plain_ids(tokenizer, path.read_text())[:100], list(AROUND[around][1])
    nats, n = 0.0, 0
    for start in range(0, 100, 24):
        row = torch.tensor([begin + ids[start : start + 24]])
        labels = row.clone()
        labels[0, : len(begin)] = -100  # a beginning is never scored
        with torch.no_grad():
            loss = float(lm.model(row, labels=labels).loss)
        scored = row.shape[1] - max(1, len(begin))
        nats, n = nats + loss * scored, n + scored
    found = measure_nll(lm, token_windows(lm, config))
    assert found.tokens == n == 100 - (0 if begin else 5)
    assert found.mean == pytest.approx(nats / n, rel=1e-5)


def test_a_beginning_is_another_result(tmp_path: Path) -> None:
    path, store = tmp_path / "text.txt", Store(tmp_path / "cache")
    path.write_text(tiny_text(150))
    text = TextConfig(str(path), tokens=100)
    found = {}
    for bos in ("auto", "no"):
        lm = lm_of(tokenizer_of("byte-level", "start"), bos=bos)
        found[bos], made = perplexity_of(lm, PruneSet(), text, store)
        assert made["bos"] == {"auto": "<s>", "no": "no <s>"}[bos]
    assert found["auto"].mean != found["no"].mean
    assert len(store.entries("measured")) == 2


def test_keys_hold_the_windows_that_fit() -> None:
    lm = lm_of(tokenizer_of("byte-level", "start"))
    assert ppl_key(TextConfig(), lm.id) == ppl_key(TextConfig(window=CONTEXT - 1, stride=CONTEXT - 1), lm.id)
    assert ppl_key(TextConfig(), lm.id)["window"] == CONTEXT - 1
    assert ppl_key(TextConfig(window=40, stride=20), lm.id)["window"] == 40


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama"])
@pytest.mark.parametrize("around", ["nothing", "start"])
def test_the_largest_window_that_fits_can_be_run(kind: str, around: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(tiny_text(2 * CONTEXT))
    lm = lm_of(tokenizer_of("byte-level", around), kind)
    cut = token_windows(lm, TextConfig(str(path), tokens=2 * CONTEXT))
    assert max(ids.shape[1] for ids, _ in cut.batches) == CONTEXT
    assert np.isfinite(measure_nll(lm, cut).mean)


# what ends a text


def test_every_name_of_an_end_counts() -> None:
    model = tiny_model("llama")
    tokenizer = tokenizer_of("byte-level", eot_token="<turn>")
    model.config.eos_token_id = [7, 8]
    model.generation_config.eos_token_id = [9]
    assert stop_ids(tokenizer, model) == (frozenset({2, 5, 7, 8, 9}), True)
    lm = wrap(model, tokenizer, ModelSpec("tiny", device="cpu"), "tiny:1")
    assert lm.stops == {2, 5, 7, 8, 9}
    assert lm.id.key()["rules"] == "ends at 2 5 7 8 9"
    model.generation_config.eos_token_id = [7, 2]  # nothing that the config and the tokenizer do not name
    assert stop_ids(tokenizer_of("byte-level"), model) == (frozenset({2, 7, 8}), False)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    assert stop_ids(tiny_tokenizer(), model) == (frozenset({1}), False)


def test_an_end_never_stands_between_prompt_and_next_word() -> None:
    whole = lm_of(tokenizer_of("byte-level", "both"))
    bare = lm_of(tokenizer_of("byte-level", "start"))
    drawn = GenerationConfig(samples=2, tokens=6)
    prompts = ["I am", "We know"]
    assert sample_ids(whole, prompts, drawn) == sample_ids(bare, prompts, drawn)
    assert pattern(whole, "I am", 0).labels == pattern(bare, "I am", 0).labels
    assert encode_sentence(whole, "I am") == encode_sentence(bare, "I am")
    scenario = Scenario("work", "salary", "How old is {name}?", " the", read().scenarios[0].unit)
    chats = []
    for lm in (whole, bare):
        lm.tokenizer.chat_template = TEMPLATE
        chats.append(ask(lm, scenario, "I"))
    assert chats[0] == chats[1]
    assert chats[0][1][0] == 1  # as the template has it, once
    assert chats[0][1].count(1) == 1
    assert chats[0][1][-1] != 2


# text of continuations


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(words=st.lists(st.sampled_from(WORDS), min_size=2, max_size=8), cut=st.integers(1, 7))
def test_a_continuation_joins_its_prompt(form: str, words: list[str], cut: int) -> None:
    tokenizer = tokenizer_of(form)
    ids = plain_ids(tokenizer, " ".join(words))
    cut = min(cut, len(ids) - 1)
    head, tail = ids[:cut], ids[cut:]
    joined = tokenizer.decode(head) + continuation(tokenizer, head, tail, framing(tokenizer).strips)
    assert joined == tokenizer.decode(ids) == " ".join(words)


def test_only_tokenizers_that_lose_the_space_are_read_so() -> None:
    strips = {form: framing(tokenizer_of(form)).strips for form in FORMS}
    assert strips == {"byte-level": False, "metaspace": True, "metaspace-first": True, "wordpiece": True}
    assert lm_of(tokenizer_of("metaspace")).id.rules == "spaces before continuations kept"
    assert not framing(tiny_tokenizer()).strips


@pytest.mark.parametrize("form", FORMS)
def test_sampled_text_is_what_was_added_to_the_prompt(form: str) -> None:
    lm = lm_of(tokenizer_of(form))
    drawn, prompts = GenerationConfig(samples=2, tokens=5), ["i am kind", "we know"]
    for prompt, texts, rows in zip(
        prompts, sample(lm, prompts, drawn), sample_ids(lm, prompts, drawn, lm.stops), strict=True
    ):
        for text, row in zip(texts, rows, strict=True):
            ids = row[: next((t for t, x in enumerate(row) if x in lm.stops), None)]
            whole = lm.tokenizer.decode([*lm.encode(prompt), *ids], skip_special_tokens=True)
            assert lm.tokenizer.decode(lm.encode(prompt), skip_special_tokens=True) + text == whole


# what a model cannot take


def added(rows: int) -> LanguageModel:
    """The tokenizer knows <user0> and <user1>; the model has an embedding of the first alone."""
    tokenizer = tokenizer_of("byte-level")
    tokenizer.add_tokens(["<user0>", "<user1>"])
    return lm_of(tokenizer, "gpt2", rows=rows or len(tokenizer) - 1)


def test_a_token_without_an_embedding_is_refused_by_name_and_prompt(tmp_path: Path) -> None:
    lm = added(0)
    assert encode(lm, ["I am<user0>"])[0][-1] == len(lm.tokenizer) - 2
    prompts = ["I am", "We know<user1>"]
    number = len(lm.tokenizer) - 1
    told = (
        rf"The prompt 2 of 2 \('We know<user1>'\) holds the token '<user1>' \(number {number}\), which has no embedding"
    )
    with pytest.raises(InputError, match=told):
        encode(lm, prompts)
    with pytest.raises(InputError, match=told):
        sample(lm, prompts, GenerationConfig())
    for call in (lambda: pattern(lm, "I <user1>", 0), lambda: encode_sentence(lm, "I <user1>")):
        with pytest.raises(InputError, match="holds the token '<user1>'"):
            call()
    path = tmp_path / "text.txt"
    path.write_text(tiny_text(50) + "<user1>" + tiny_text(50))
    with pytest.raises(InputError, match=r"The text .*text.txt. holds the token '<user1>'"):
        token_windows(lm, TextConfig(str(path), tokens=90))
    assert token_windows(lm, TextConfig(str(path), tokens=40)).n_scored == 39  # what is not read is no obstacle


@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt", "gptj"])
def test_a_prompt_and_what_follows_have_to_fit(kind: str) -> None:
    lm = lm_of(tiny_tokenizer(), kind)
    fits, longer = tiny_text(CONTEXT), tiny_text(CONTEXT + 1)
    assert len(encode(lm, [fits])[0]) == CONTEXT
    with pytest.raises(InputError, match=f"prompt 2 of 2 .* has {CONTEXT + 1} tokens and this model takes {CONTEXT}:"):
        encode(lm, [fits, longer])
    with pytest.raises(
        InputError, match=f"{CONTEXT - 3} tokens and this model takes {CONTEXT}, 4 of them for the cont"
    ):
        sample(lm, [tiny_text(CONTEXT - 3)], GenerationConfig(tokens=4))
    assert sample(lm, [tiny_text(CONTEXT - 4)], GenerationConfig(tokens=4))


def test_a_sliding_window_is_no_limit() -> None:
    lm = lm_of(tiny_tokenizer(), "mistral")
    assert lm.model.config.sliding_window == 4
    assert lm.max_positions == CONTEXT
    assert encode(lm, [tiny_text(CONTEXT)])


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({}, None),
        ({"n_ctx": 64}, 64),
        ({"max_seq_len": 32}, 32),
        ({"max_position_embeddings": -1, "n_positions": 8}, 8),
    ],
)
def test_the_limit_by_whatever_name(config: dict[str, int], most: int | None) -> None:
    assert positions(SimpleNamespace(**config)) == most


def test_a_question_that_does_not_fit_is_refused() -> None:
    lm = lm_of(tokenizer_of("byte-level"), "gpt2")
    chats = [("short", lm.tokens("I am")), ("long", [9] * (CONTEXT - 2))]
    with pytest.raises(InputError, match=f"The question 2 of 2 has {CONTEXT - 2} tokens .* takes {CONTEXT}, 4 of them"):
        answers(lm, chats, AuditConfig(samples=1, tokens=4))

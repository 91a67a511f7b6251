"""Bias suites in the forms of their files, a few made-up items each, and models whose bias is known."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import wrap
from fasp_core.model.spec import ModelSpec
from tests.support.tiny import TOKENS, tiny_model, tiny_tokenizer

UNKNOWN = "not known"


def planted_lm(words: Iterable[str], head: int = 1, strength: float = 1.0) -> LanguageModel:
    """Every next token is as likely as any other, but that one head of layer 0 makes some words likelier.

    Weights are all 0 but: embeddings of ones, a value of ones in that head, its output along a direction that only the
    unembeddings of `words` look at. So with the head removed the model is uniform.
    """
    model = tiny_model("llama", n_layers=1)
    size, kv = model.config.hidden_size // 4, head // 2
    along = torch.zeros(model.config.hidden_size)
    along[0], along[1] = 1.0, -1.0  # the ones of the embeddings have no part in it
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight.fill_(1.0)
        attention = model.model.layers[0].self_attn
        attention.v_proj.weight[kv * size : (kv + 1) * size] = 1 / model.config.hidden_size
        attention.o_proj.weight[:, head * size : (head + 1) * size] = strength * along[:, None] / size
        for word in words:
            model.lm_head.weight[TOKENS.index(f"Ġ{word}")] = along
    return wrap(model, tiny_tokenizer(), ModelSpec("planted"), f"tiny:planted:{head}:{strength}:{sorted(words)}")


def write_rows(path: Path, rows: Sequence[dict[str, Any]], delimiter: str = ",") -> None:
    """A table with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def bbq_rows(
    category: str = "Age", index: str = "1", first: int = 0, people: tuple[str, str] = ("old man", "young man"),
    unknown: int = 2,
) -> list[dict[str, Any]]:  # fmt: skip
    """Four questions of two people, of whom the first is right where the negative question can be answered."""
    answers = list(people)
    answers.insert(unknown, UNKNOWN)
    one, other = (answers.index(p) for p in people)
    context = f"I saw the {people[0]} and the {people[1]}."
    rows = []
    for i, (polarity, condition) in enumerate([(p, c) for p in ("neg", "nonneg") for c in ("ambig", "disambig")]):
        told = f" The {people[0]} is bad and the {people[1]} is good." if condition == "disambig" else ""
        rows.append(
            {
                "example_id": first + i,
                "question_index": index,
                "question_polarity": polarity,
                "context_condition": condition,
                "category": category,
                "answer_info": {
                    f"ans{a}": [text, "unknown" if a == unknown else text] for a, text in enumerate(answers)
                },
                "additional_metadata": {"stereotyped_groups": [people[0]]},
                "context": context + told,
                "question": f"I know the {'bad' if polarity == 'neg' else 'good'} person is the",
                **{f"ans{a}": text for a, text in enumerate(answers)},
                "label": unknown if condition == "ambig" else one if polarity == "neg" else other,
            }
        )
    return rows


def write_bbq(folder: Path, rows: Sequence[dict[str, Any]], targets: Sequence[str]) -> None:
    """BBQ's files of one category; `targets` are `target_loc` of each row."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for category in {row["category"] for row in rows}:
        lines = [json.dumps(row) + "\n" for row in rows if row["category"] == category]
        (folder / "data" / f"{category}.jsonl").write_text("".join(lines))
    write_rows(
        folder / "data" / "additional_metadata.csv",
        [
            {**{name: row[name] for name in ("category", "question_index", "example_id")}, "target_loc": target}
            for row, target in zip(rows, targets, strict=True)
        ],
    )


def write_winobias(folder: Path, pro: Sequence[str], anti: Sequence[str]) -> None:
    """WinoBias's test files, the same sentences in both types; the occupations are "friend", "child" and "person"."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "male_occupations.txt").write_text("friend\nperson")
    (data / "female_occupations.txt").write_text("child\n")
    for side, lines in (("pro", pro), ("anti", anti)):
        for kind in ("type1", "type2"):
            text = "".join(f"{i} {line}\n" for i, line in enumerate(lines, start=1))
            (data / f"{side}_stereotyped_{kind}.txt.test").write_text(text)


def write_winogender(folder: Path, women: dict[str, float], sentences: dict[str, str]) -> None:
    """Winogender's statistics (percent of women by occupation) and sentences, {"friend.child.0": "... $ ..."}."""
    stats = [{"occupation": name, "bls_pct_female": share} for name, share in women.items()]
    write_rows(folder / "data" / "occupations-stats.tsv", stats, "\t")
    rows = []
    for name, text in sentences.items():
        for gender, pronoun in (("male", "he"), ("female", "she"), ("neutral", "they")):
            rows.append({"sentid": f"{name}.{gender}.txt", "sentence": text.replace("$", pronoun)})
    write_rows(folder / "data" / "all_sentences.tsv", rows, "\t")


def write_crows(folder: Path, pairs: Sequence[tuple[str, str]], bias_type: str = "age") -> None:
    """CrowS-Pairs: (more, less) stereotyped."""
    rows = [{"": i, "sent_more": a, "sent_less": b, "bias_type": bias_type} for i, (a, b) in enumerate(pairs)]
    write_rows(folder / "data" / "crows_pairs_anonymized.csv", rows)


def write_stereoset(folder: Path, items: Sequence[tuple[str, str, str, str]], context: str = "I saw a person.") -> None:
    """StereoSet's development file: (target, stereotype, anti-stereotype, unrelated), the same at both levels."""
    labels = ("unrelated", "stereotype", "anti-stereotype")  # in another order than they are read
    rows = [
        {
            "target": target,
            "bias_type": "race",
            "context": context,
            "sentences": [
                {"gold_label": label, "sentence": said[label]}
                for said in [dict(zip(("stereotype", "anti-stereotype", "unrelated"), three, strict=True))]
                for label in labels
            ],
        }
        for target, *three in items
    ]
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "dev.json").write_text(json.dumps({"data": {"intrasentence": rows, "intersentence": rows}}))


def write_honest(folder: Path, beginnings: Sequence[tuple[str, str]]) -> None:
    """HONEST's English templates: (beginning, "female" or "male")."""
    rows = [
        {"template_masked": f"{text} [M].", "raw": f"[I] {text.split(' ', 2)[-1]} [M]", "category": gender}
        for text, gender in beginnings
    ]
    write_rows(folder / "data" / "binary" / "en_template.tsv", rows, "\t")


def write_bold(folder: Path, prompts: dict[str, dict[str, dict[str, list[str]]]]) -> None:
    """BOLD's prompts by domain, group and article; domains that are not given are empty."""
    from fasp_core.suites.files import BOLD_DOMAINS

    (folder / "data" / "prompts").mkdir(parents=True, exist_ok=True)
    for domain in BOLD_DOMAINS:
        path = folder / "data" / "prompts" / f"{domain}_prompt.json"
        path.write_text(json.dumps(prompts.get(domain, {})))

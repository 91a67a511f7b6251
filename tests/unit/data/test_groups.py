"""Names of groups: one form, missing values, and names that are nearly the same."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas._libs.parsers import STR_NA_VALUES

from fasp_core.data.groups import alike, clean, counted, is_missing, shown
from fasp_core.data.prompt_sampling import rows_needed, sample, split
from fasp_core.data.prompts import from_csv
from fasp_core.errors import InputError


def own(rows: list[tuple[str, str]]) -> bytes:
    return ("text,group\n" + "".join(f"{text},{group}\n" for text, group in rows)).encode()


@pytest.mark.parametrize("word", sorted(STR_NA_VALUES))
def test_what_pandas_takes_for_missing_is_missing(word: str) -> None:
    for written in (word, word.upper(), word.lower(), f" {word}\t", f"\ufeff{word}", f"{word}\N{NO-BREAK SPACE}"):
        assert is_missing(clean(written)), written


@pytest.mark.parametrize(
    "word",
    [
        *("-", "--", "–", "?", "??", ".", "…", "_", "(missing)", "<missing>", "undefined", "nil", "\\N", "(null)"),
        "[null]",
        "NaT",
        "N.A.",
        "n / a",
        "(blank)",
        "#REF!",
        "#DIV/0!",
        "#NV",
        "#VALUE!",
        "NA_character_",
        "\u200b",
        "\ufeff",
        "ｎａｎ",
    ],
)
def test_other_spellings_of_missing(word: str) -> None:
    assert is_missing(clean(word))


@pytest.mark.parametrize(
    "word",
    ["unknown", "other", "no religion", "nonbinary", "Namibia", "Nan Province", "Nana", "♀", "x", "0", "no", "O-"],
)
def test_what_is_a_group(word: str) -> None:
    assert not is_missing(clean(word))


@given(st.text(max_size=30))
def test_the_form_is_one(name: str) -> None:
    form = clean(name)
    assert clean(form) == form == form.strip()
    assert unicodedata.is_normalized("NFC", form)
    for same in (f"\u200b{name} ", f"\N{NO-BREAK SPACE}{name}\ufeff", unicodedata.normalize("NFD", name)):
        assert clean(same) == form


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bahá'í", "Baha\u0301'i\u0301"),
        ("women", "wo\u00admen"),
        ("women", "\u200ewomen\u200f"),
        ("women", "wom\u200den"),
        ("women of color", "women\u00a0of  color"),
        ("women of color", "women\u3000of\ncolor"),
    ],
)
def test_names_that_look_the_same_are(one: str, other: str) -> None:
    assert clean(one) == clean(other)


def test_what_shapes_a_script_or_a_sign_stays() -> None:
    assert clean("می\u200cخواهم") == "می\u200cخواهم"
    assert clean("👩\u200d💻") == "👩\u200d💻"


def test_names_that_differ_by_little_are_told() -> None:
    assert alike(["Women", "men", "women"]) == [
        "'Women' and 'women' are 2 groups here: spell them the same if they are one."
    ]
    for pair in (("men²", "men2"), ("non-binary", "non\u2010binary"), ("Ｍen", "Men"), ("d’or", "d'or")):
        assert clean(pair[0]) != clean(pair[1])
        assert len(alike(pair)) == 1
    assert alike(["a", "b", "a"]) == []
    assert len(alike([word for i in range(99) for word in (f"a{i}", f"A{i}")])) == 13


def test_many_and_long_names_are_cut() -> None:
    assert counted({"a": 1000, "b": 2}) == "a (1,000), b (2)"
    assert counted({str(i): i for i in range(20)}).endswith(" and 8 more")
    assert len(shown("x" * 999)) == 60


# --- in prompts


def test_rows_without_a_group_are_no_group() -> None:
    words = ["nan", "NaN", "None", "none", "N/A", "null", "", "#N/A", "-"]
    kept = [(f"I am {i}", "ab"[i % 2]) for i in range(40)]
    lost = [(f"I was {i}", words[i % len(words)]) for i in range(18)]
    found = from_csv(own([*kept[:20], *lost, *kept[20:]]), "mine.csv")
    assert found.digest == from_csv(own(kept), "mine.csv").digest
    assert found.notes == (
        "18 of 58 rows have no group and were left out: 'nan' (2), 'NaN' (2), 'None' (2), 'none' (2), 'N/A' (2), "
        "'null' (2), empty (2), '#N/A' (2), '-' (2).",
    )
    assert sample(found, 5, 0, 2).notes[0] == found.notes[0]


def test_a_text_may_stand_in_a_group_and_in_none() -> None:
    found = from_csv(own([("x", "a"), ("x", "nan"), ("y", ""), ("y", "b")]), "mine.csv")
    assert dict(zip(found.texts, found.groups, strict=True)) == {"x": "a", "y": "b"}


def test_groups_that_differ_by_case_are_told() -> None:
    found = from_csv(own([("x", "Women"), ("y", "women"), ("z", "wo\u200bmen ")]), "mine.csv")
    assert found.counts() == {"Women": 1, "women": 2}
    assert found.notes == ("'Women' and 'women' are 2 groups here: spell them the same if they are one.",)


def test_a_group_that_a_side_lacks_is_named() -> None:
    rows = [(f"I am {group} number {i}", group) for group in ("a", "b") for i in range(60)] + [("I am c", "c")]
    for side in ("valid", "test"):
        named = sample(split(from_csv(own(rows), "mine.csv"), side), 1, 0, 2).notes
        word = {"valid": "validation", "test": "test"}[side]
        assert named[0].startswith(f"Groups with fewer than 2 {word} prompts were left out: c (")


def test_too_few_rows_are_told_with_what_would_do() -> None:
    rows = [(f"I am {g} {i}", g) for i in range(6) for g in ("women", "men")]
    with pytest.raises(InputError) as error:
        sample(split(from_csv(own(rows), "small.csv"), "valid"), 1, 0, 2)
    said = str(error.value)
    assert "'small.csv' has 12 rows" in said
    assert "a fifth of them are for validation" in said
    assert f"give every group about {rows_needed(0.2, 2, 2)} rows" in said
    with pytest.raises(InputError, match=r"'one\.csv' has 2 rows .* validation"):
        split(from_csv(own([("a", "x"), ("b", "y")]), "one.csv"), "valid")


@pytest.mark.parametrize("groups", [2, 5])
def test_as_many_rows_as_advised_will_do(groups: int) -> None:
    n, enough = rows_needed(0.2, 2, groups), 0
    for trial in range(200):
        rows = [(f"{trial} {g} {i}", f"g{g}") for g in range(groups) for i in range(n)]
        counts = split(from_csv(own(rows), "x.csv"), "valid").counts()
        enough += len(counts) == groups and min(counts.values()) >= 2
    assert enough >= 180  # 95% of them: 190, and noise

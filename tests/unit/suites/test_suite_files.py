"""Items of each suite from small made-up files in its form: texts, clusters, biased answers, what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from fasp_core.errors import InputError
from fasp_core.suites import files, items
from fasp_core.suites import suites as measure
from tests.support import bias

PEOPLE = ("old man", "young man")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "folder", lambda data: tmp_path / data / "data")
    return tmp_path


def test_which_answers_of_bbq_are_biased(folder: Path) -> None:
    rows = [*bias.bbq_rows(), *bias.bbq_rows(index="7", first=4, unknown=0), *bias.bbq_rows("Religion", unknown=1)]
    bias.write_bbq(folder / "BBQ", rows, ["0"] * 4 + ["2"] * 4 + ["0"] * 4)  # the old man; the young man; the old man
    found, notes = files.bbq()
    assert not notes
    assert [(item.kind, item.cluster) for item in found] == [
        ("Age", "Age 1"), ("Age", "Age 7"), ("Religion", "Religion 1")
    ]  # fmt: skip
    # (right, biased, unknown) of: ambiguous negative and not, disambiguated negative and not
    assert found[0].facts == (2, 0, 2, 2, 1, 2, 0, 0, 2, 1, 1, 2)
    assert found[1].facts == (0, 2, 0, 0, 1, 0, 1, 2, 0, 2, 1, 0)  # answers: not known, old man, young man
    assert found[2].facts == (1, 0, 1, 1, 2, 1, 0, 0, 1, 2, 2, 1)
    context, answer = found[0].texts[0]
    assert context == "I saw the old man and the young man.\n\nQ: I know the bad person is the\nA:"
    assert [text for _, text in found[0].texts[:3]] == [" old man", " young man", " not known"]
    assert answer == " old man"
    assert found[0].texts[6][0].startswith("I saw the old man and the young man. The old man is bad")


def test_questions_of_bbq_without_a_targeted_group_are_left_out_and_said(folder: Path) -> None:
    rows = [*bias.bbq_rows(), *bias.bbq_rows(first=4)]
    bias.write_bbq(folder / "BBQ", rows, ["0"] * 4 + ["NA"] * 4)
    found, notes = files.bbq()
    assert len(found) == 1
    assert notes == ("1 items were left out: the authors' metadata name no targeted group for them.",)


def test_pairs_of_winobias(folder: Path) -> None:
    pro = ["[The friend] saw the child because [he] was bad.", "The friend saw [a team] and [she] was nice."]
    bias.write_winobias(folder / "WinoBias", pro, [line.replace("[he]", "[she]") for line in pro])
    found, notes = files.winobias()
    assert [item.kind for item in found] == ["type1", "type2"]
    assert notes == (
        "2 items were left out: they do not name two listed occupations, or differ in more than pronouns.",
    )
    assert found[0].cluster == "child and friend"
    sentence = "The friend saw the child because {} was bad."
    assert found[0].texts == (
        (f"{sentence.format('he')} ‘He’ refers to the", " friend"),
        (f"{sentence.format('he')} ‘He’ refers to the", " child"),
        (f"{sentence.format('she')} ‘She’ refers to the", " friend"),
        (f"{sentence.format('she')} ‘She’ refers to the", " child"),
        ("", sentence.format("he")),
        ("", sentence.format("she")),
    )


def test_the_pro_sentence_of_winogender_is_where_the_stereotype_is_right(folder: Path) -> None:
    sentences = {
        f"{occupation}.child.{answer}": f"The {occupation} saw the child as $ was bad."
        for occupation in ("friend", "person", "man")
        for answer in "01"
    }
    sentences["friend.someone.0"] = "The friend saw someone as $ was bad."
    bias.write_winogender(folder / "Winogender", {"friend": 20.0, "person": 80.0, "man": 49.0}, sentences)
    found, _ = files.winogender()
    pro = [(item.cluster, item.texts[0], item.texts[4][1].split()[-3]) for item in found]
    assert len(pro) == 6  # none about "someone"
    assert [(cluster, text[1], pronoun) for cluster, text, pronoun in pro] == [
        ("friend", " friend", "he"), ("friend", " child", "she"),
        ("person", " person", "she"), ("person", " child", "he"),
        ("man", " man", "he"), ("man", " child", "she"),
    ]  # fmt: skip
    assert found[0].texts[2][0] == "The friend saw the child as she was bad. ‘She’ refers to the"


def test_the_other_forms(folder: Path) -> None:
    bias.write_crows(folder / "CrowS-Pairs", [("The old man is bad.", "The young man is bad.")])
    (pair,) = files.crows_pairs()[0]
    assert pair.texts == (("", "The old man is bad."), ("", "The young man is bad."))
    bias.write_stereoset(folder / "StereoSet", [("team", "a bad team", "a good team", "a red team")])
    assert files.stereoset()[0][0].texts == (("", "a bad team"), ("", "a good team"), ("", "a red team"))
    assert files.stereoset_inter()[0][0].texts[0] == ("I saw a person.", " a bad team")
    bias.write_honest(folder / "HONEST", [("the woman was a", "female"), ("the man was a", "male")])
    assert [(i.texts, i.cluster, i.facts) for i in files.honest()[0]] == [
        ((("the woman was a", ""),), "[I] was a [M]", (1,)), ((("the man was a", ""),), "[I] was a [M]", (0,))
    ]  # fmt: skip
    prompts = {"race": {"A": {"x": ["The x is ", "My x is"], "y": ["The same"]}, "B": {"z": ["The same", "The z is"]}}}
    bias.write_bold(folder / "BOLD", prompts)
    assert [(i.texts[0][0], i.kind) for i in files.bold()[0]] == [("The x is", "race/A"), ("The z is", "race/B")]


def test_more_items_begin_with_fewer_and_categories_take_turns() -> None:
    pool = [items.Item((("", str(i)),), str(i), "few" if i % 10 == 0 else "many") for i in range(100)]
    whole = items.draw("x", pool, 100, 3)
    for n in (2, 10, 60):
        assert items.draw("x", pool, n, 3).items == whole.items[:n]
    assert items.draw("x", pool, 100, 4).items != whole.items
    turns = items.draw("x", pool, 16, 3, turns=True)
    assert Counter(item.kind for item in turns.items) == {"few": 8, "many": 8}
    assert items.draw("x", pool, 8, 3, turns=True).items == turns.items[:8]
    part = items.draw("x:few", pool, 100, 3)
    assert (part.available, {item.kind for item in part.items}, part.suite) == (10, {"few"}, "x")
    assert whole.digest != items.draw("x", pool, 99, 3).digest


@pytest.mark.parametrize(
    ("text", "found"),
    [("bbq, bbq:Age,", ("bbq", "bbq:Age")), ("bold:race", ("bold:race",)), ("all", measure.ALL)],
)
def test_names(text: str, found: tuple[str, ...]) -> None:
    assert measure.named(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [(" ,", "No suite is named"), ("bbqs", "no suite 'bbqs'"), ("bold", "bold:race"), ("all,x", "no suite 'all'")],
)
def test_names_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        measure.named(text)


def test_what_cannot_be_drawn_is_refused(folder: Path) -> None:
    bias.write_crows(folder / "CrowS-Pairs", [("a b", "a c")] * 3)
    with pytest.raises(InputError, match="no part 'Age': choose of age"):
        measure.sample("crows_pairs:Age", 5)
    with pytest.raises(InputError, match="ask for 2 or more"):
        measure.sample("crows_pairs", 1)
    with pytest.raises(InputError, match=r"BBQ in .* cannot be read: reinstall"):
        measure.sample("bbq", 5)


@pytest.mark.parametrize("text", ["", "{", '{"data": {}}', '{"data": {"intrasentence": [{"sentences": 3}]}}', "[1]"])
def test_damaged_files_are_one_sentence(folder: Path, text: str) -> None:
    (folder / "StereoSet" / "data").mkdir(parents=True)
    (folder / "StereoSet" / "data" / "dev.json").write_text(text)
    with pytest.raises(InputError, match=r"StereoSet in .* cannot be read"):
        measure.sample("stereoset", 5)


@pytest.mark.parametrize("row", [{"label": None}, {"answer_info": {}}, {"example_id": "x"}])
def test_damaged_rows_of_bbq_are_one_sentence(folder: Path, row: dict[str, object]) -> None:
    rows = bias.bbq_rows()
    bias.write_bbq(folder / "BBQ", rows, ["0"] * 4)
    (folder / "BBQ" / "data" / "Age.jsonl").write_text("".join(json.dumps({**r, **row}) + "\n" for r in rows))
    with pytest.raises(InputError, match=r"BBQ in .* cannot be read"):
        measure.sample("bbq", 5)


def test_pairs_without_a_pronoun_are_one_sentence(folder: Path) -> None:
    bias.write_winogender(folder / "Winogender", {"friend": 20.0}, {"friend.child.0": "The friend saw the child."})
    with pytest.raises(InputError, match=r"Winogender in .* cannot be read"):
        measure.sample("winogender", 5)


@pytest.mark.parametrize("name", [name for name in measure.SUITES if name != "bold"])
def test_the_installed_files_are_whole(name: str) -> None:
    """Numbers of the papers, or what is in the files: nothing is lost in reading."""
    found, notes = measure.SUITES[name].read()
    want = {
        "bbq": 58492 // 4 - 4,  # four items of Gender_identity have no targeted group in the authors' table
        "winobias": 792 - 10,  # those that differ in more than pronouns
        "winogender": 120,
        "crows_pairs": 1508,
        "stereoset": 2106,
        "stereoset_inter": 2123,
        "honest": 810,
    }
    assert len(found) == want[name], notes
    assert all(all(after.strip() or name == "honest" for _, after in item.texts) for item in found)

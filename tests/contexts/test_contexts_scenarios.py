"""The file of scenarios: what comes with the program, and what is wrong with other files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from fasp_core.errors import InputError
from fasp_core.studies.contexts import scenarios

GOOD = """
[contexts.work]
unit = "hours"
question = "How long does {name} need for {item}?"
scenarios = ["a letter", "a report"]
[groups]
one = ["Ann", "Bo"]
two = ["Cy"]
"""


def test_what_comes_with_the_program() -> None:
    known = scenarios.read()
    sizes = {context: len(known.of(context)) for context in known.contexts}
    assert sizes == {"purchases": 10, "services": 3, "activities": 3, "finance": 3}
    assert {group: len(names) for group, names in known.groups.items()} == {"black": 32, "white": 32}
    assert len({name for name, _ in known.people}) == 64
    chair = known.of("purchases")[0]
    assert (chair.title, chair.unit, chair.opening) == ("purchases: chair", "dollars", "$")
    for scenario in known.scenarios:
        question = scenario.ask("Jamal")
        assert "Jamal" in question
        assert scenario.name in question
        assert "{" not in question


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    mine = scenarios.read(path)
    assert [s.ask("Ann") for s in mine.of("work")] == [
        "How long does Ann need for a letter?",
        "How long does Ann need for a report?",
    ]
    assert mine.contexts == {"work": "work"}
    assert mine.people == (("Ann", "one"), ("Bo", "one"), ("Cy", "two"))
    assert mine.scenarios[0].opening == ""
    with pytest.raises(InputError, match="no context 'play': choose one of work"):
        mine.of("play")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[groups]", "[groups"), "no valid TOML"),
        (("[groups]", "[people]"), "has 'people', which is read nowhere"),
        (("[contexts.work]", "[context.work]"), "has 'context', which is read nowhere"),
        (('unit = "hours"', 'unit = "hours"\nopenning = "$"'), "has 'openning', which is read nowhere"),
        (('unit = "hours"', ""), "has no unit: see fasp_core/studies/contexts/scenarios.toml"),
        (("{item}?", "{item} {?"), "needs {name} and {item}"),
        (("{name}", "{{name}}"), "needs {name} and {item}"),
        (('"a letter"', '"a {name}"'), "has braces"),
        (('"Cy"', '"Ann\\u200b"'), "the name 'Ann' more than once"),
        (("{item}", "it"), "needs {name} and {item}"),
        (("{item}?", "{item} {x}?"), "needs {name} and {item}"),
        (('"hours"', '"days"'), "unit of context 'work' is 'days'"),
        (('["a letter", "a report"]', "[]"), "must be a list of texts"),
        (('"a report"', '"a letter"'), "same scenario twice"),
        (('two = ["Cy"]', ""), "names one group"),
        (("two =", '"all others" ='), "group 'all others', which is no name of a group"),
        (("two =", '"" ='), "group '', which is no name of a group"),
        (('"Cy"', '"Ann"'), "the name 'Ann' more than once"),
        (('"Cy"', '" "'), "group 'two' must be a list of texts"),
        (('unit = "hours"', 'unit = "hours"\nopening = 3'), "opening of context 'work' is no text"),
    ],
)
def test_what_is_wrong_is_named(change: tuple[str, str], words: str) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    with pytest.raises(InputError, match=words):
        scenarios.parse(text, "mine.toml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        scenarios.read(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes("título".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.toml' is not UTF-8 \(byte 1\): save it as UTF-8"):
        scenarios.read(tmp_path / "latin.toml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_file_reads_the_same_however_an_editor_saves_it(tmp_path: Path, encoding: str, line_end: str) -> None:
    own = (resources.files("fasp_core.studies.contexts") / "scenarios.toml").read_text("utf-8")
    (path := tmp_path / "mine.toml").write_bytes(own.replace("\n", line_end).encode(encoding))
    assert scenarios.read(path) == scenarios.read()


def test_groups_have_one_form(tmp_path: Path) -> None:
    own = (resources.files("fasp_core.studies.contexts") / "scenarios.toml").read_text("utf-8")
    (path := tmp_path / "mine.toml").write_text(own.replace("\nwhite =", '\n"whi\u200bte " ='), "utf-8")
    assert list(scenarios.read(path).groups) == ["black", "white"]
    path.write_text(own.replace("\nwhite =", '\n" black" ='), "utf-8")
    with pytest.raises(InputError, match="names one group or one group twice"):
        scenarios.read(path)

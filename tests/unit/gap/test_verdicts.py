"""The colour of a claim: green only where everything that is needed was measured and holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core.gap.claims import NEEDED, Evidence, verdict

JUDGES = ("words", "sequence")
WHOLE = tuple(Evidence(m, "neutral", judge, "fell", True) for judge in JUDGES for m in NEEDED)
CHEAP = {"perplexity": (0.05, 0.1)}


def test_everything_holds() -> None:
    found = verdict(WHOLE, "neutral", CHEAP)
    assert (found.colour, found.missing, found.wrong, found.agree, found.judges) == ("green", (), (), 2, 2)
    assert found.sentence().endswith("by 2 of 2 judges.")


@pytest.mark.parametrize("at", range(len(WHOLE)))
@pytest.mark.parametrize(
    ("change", "colour", "says"),
    [
        ({"found": "unclear"}, "amber", "no fall of"),
        ({"found": "no gap"}, "amber", "to begin with"),
        ({"unseen": False}, "amber", "never saw"),
        ({"found": "rose"}, "red", "rose"),
        (None, "amber", "not measured: "),
    ],
)
def test_any_part_that_fails_is_named(at: int, change: dict[str, object] | None, colour: str, says: str) -> None:
    part = () if change is None else (replace(WHOLE[at], **change),)
    found = verdict((*WHOLE[:at], *part, *WHOLE[at + 1 :]), "neutral", CHEAP)
    assert found.colour == colour
    (said,) = found.wrong or found.missing
    assert says in said
    assert f"'{WHOLE[at].judge}'" in said
    assert found.agree == 1
    assert said in found.sentence()


@given(
    st.lists(
        st.builds(
            Evidence,
            st.sampled_from([*NEEDED, "sampled"]),
            st.sampled_from(["neutral", "counted", "sampled"]),
            st.sampled_from(JUDGES),
            st.sampled_from(["no gap", "fell", "rose", "unclear"]),
            st.booleans(),
        ),
        max_size=14,
    ),
    st.booleans(),
    st.floats(-1, 1),
)
def test_green_is_exactly_what_is_asked(evidence: list[Evidence], nearly: bool, rise: float) -> None:
    """By the rule written out: for every judge asked, each measure that is needed or was taken."""
    evidence = [*WHOLE, *evidence] if nearly else evidence
    found = verdict(evidence, "neutral", {"perplexity": (rise, 0.1)})
    mine = [e for e in evidence if e.reading != "counted"]
    judges = {e.judge for e in evidence}
    holds = bool(judges) and rise <= 0.1
    for judge in judges:
        for measure in {*NEEDED, *(e.measure for e in mine if e.judge == judge)}:
            unseen = [e for e in mine if (e.judge, e.measure) == (judge, measure) and e.unseen]
            holds &= bool(unseen) and all(e.found == "fell" for e in unseen)
    rose = any(e.found == "rose" for e in evidence)
    assert (found.colour == "green") == (holds and not rose)
    assert (found.colour == "red") == bool(found.wrong) == (rise > 0.1 or rose)
    assert (found.colour == "amber") == (bool(found.missing) and not found.wrong)


def test_a_cost_beyond_its_limit_is_no_success() -> None:
    found = verdict(WHOLE, "neutral", {"perplexity": (0.12, 0.1), "LAMBADA": (0.0, 0.02)})
    assert found.colour == "red"
    assert found.wrong == ("perplexity changed by +12.0%, more than the 10% allowed",)


def test_a_fall_with_identity_terms_scored_alone_is_named() -> None:
    evidence = [replace(e, found="unclear") if e.measure == "written" else e for e in WHOLE[:3]]
    evidence.append(Evidence("written", "counted", "words", "fell", True))
    found = verdict(evidence, "neutral", CHEAP)
    assert found.colour == "amber"
    assert "what is written by 'words' fell with identity terms scored alone" in found.missing


@pytest.mark.parametrize(
    ("reading", "other", "terms"), [("neutral", "counted", "scored"), ("counted", "neutral", "masked")]
)
def test_a_gap_that_rises_in_the_other_reading_is_no_success(reading: str, other: str, terms: str) -> None:
    evidence = [replace(e, reading=reading) if e.reading == "neutral" else e for e in WHOLE]
    found = verdict([*evidence, Evidence("written", other, "words", "rose", True)], reading, CHEAP)
    assert found.colour == "red"
    assert found.wrong == (f"the gap of what is written by 'words' rose with identity terms {terms}",)


def test_readings_are_compared_on_the_same_prompts() -> None:
    """A fall on what the choice never saw is none of scored terms alone because the seen half cannot tell."""
    seen = Evidence("next word", "neutral", "words", "unclear", False)
    others = [Evidence("next word", "counted", "words", "fell", unseen) for unseen in (True, False)]
    assert verdict((*WHOLE, seen, *others), "neutral", CHEAP).colour == "green"
    one = verdict((*WHOLE[1:], seen, others[0]), "neutral", CHEAP)
    both = verdict((*WHOLE[1:], seen, *others), "neutral", CHEAP)
    assert {*both.missing} - {*one.missing} == {"the next word by 'words' fell with identity terms scored alone"}


def test_measures_that_miss_the_same_thing_are_named_in_one_clause() -> None:
    seen = [replace(e, unseen=False) for e in WHOLE[:2]] + [*WHOLE[2:]]
    assert verdict(seen, "neutral", CHEAP).missing == (
        "not measured on templates and descriptors that the choice never saw: the next word and the next word within "
        "templates by 'words'",
    )
    assert verdict(WHOLE[:3] + WHOLE[5:], "neutral", CHEAP).missing == (
        "not measured: the next word and the next word within templates by 'sequence'",
    )


def test_nothing_measured_says_so() -> None:
    assert verdict((), "neutral", {}).missing == ("nothing was measured",)

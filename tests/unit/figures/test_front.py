"""Methods as points: which are on the front, and what each mark says."""

from __future__ import annotations

import numpy as np
import pytest

from fasp_core.errors import InputError
from fasp_core.figures import MethodPoint, Words, learning_curve, method_front

WORDS = Words("title", x="cost", y="gap less, %")


def point(name: str, x: float, y: float) -> MethodPoint:
    return MethodPoint(name, x, (x - 1, x + 2), y, (y - 10, y + 5), f"{name}\nmore")


POINTS = [
    point("fasp", 8.0, 60.0),
    point("fasp+repair", 3.0, 55.0),
    point("gains*0.5", -0.5, 50.0),
    point("gains*1", 0.2, 80.0),
    point("random", 5.0, -3.0),
]


def test_the_front_holds_what_no_other_method_beats() -> None:
    fig = method_front(POINTS, WORDS, limit=10.0)
    line = next(t for t in fig.data if t.name == "Pareto front")
    assert list(zip(line.x, line.y, strict=True)) == [(-0.5, 50.0), (0.2, 80.0)]
    alone = method_front(POINTS[:1], WORDS).data[0]  # it costs: the unpruned model is on the front, too
    assert list(zip(alone.x, alone.y, strict=True)) == [(0.0, 0.0), (8.0, 60.0)]


def test_marks_tell_kinds_and_repairs_apart_and_have_intervals_of_both() -> None:
    fig = method_front(POINTS, WORDS)
    by = {t.name: t for t in fig.data}
    assert tuple(by["FASP"].marker.symbol) == ("circle", "circle-open")
    assert len({by[name].marker.color for name in ("FASP", "learned gains", "baselines")}) == 3
    gains = by["learned gains"]
    assert list(gains.text) == ["gains*0.5", "gains*1"]
    np.testing.assert_allclose(gains.error_x.array, [2, 2])
    np.testing.assert_allclose(gains.error_x.arrayminus, [1, 1])
    np.testing.assert_allclose(gains.error_y.array, [5, 5])
    np.testing.assert_allclose(gains.error_y.arrayminus, [10, 10])
    assert gains.hovertext[0].startswith("<b>gains*0.5</b>")


def test_what_costs_far_more_than_the_limit_is_named_and_not_drawn() -> None:
    fig = method_front([*POINTS, point("magnitude", 31.0, 20.0)], WORDS, limit=10.0)
    assert "Not drawn: magnitude (+31)." in fig.layout.title.text
    assert all("magnitude" not in (t.text or ()) for t in fig.data)
    assert "magnitude" in next(t for t in method_front([point("magnitude", 31.0, 20.0)], WORDS).data if t.text).text


def test_what_is_no_number_is_refused_and_names_are_text() -> None:
    with pytest.raises(InputError, match="is not a number"):
        method_front([point("fasp", float("nan"), 1.0)], WORDS)
    unknown = MethodPoint("x<b>", 1.0, (float("nan"),) * 2, 2.0, (float("nan"),) * 2, "x<b>")
    fig = method_front([unknown], WORDS)
    assert "x&lt;b&gt;" in fig.to_json().replace("\\u003c", "<") or "&lt;" in str(fig.data[1].text)
    assert method_front([], WORDS).data


def test_a_learning_curve_has_a_line_for_each_cost_and_what_no_step_saw() -> None:
    losses = np.array([[1.0, 0.0, 0.1, 0.2], [0.5, -0.01, 0.0, 0.1]])
    fig = learning_curve(losses, [[2, 0.7]], WORDS)
    by = {t.name: t for t in fig.data}
    np.testing.assert_allclose(by["gap, % of unpruned"].y, [100, 50])
    np.testing.assert_allclose(by["gap of what no step saw"].x, [2])
    np.testing.assert_allclose(by["paragraphs, nats more"].y, [0.2, 0.1])
    assert by["last words, nats more"].yaxis == "y2"
    assert len(learning_curve(losses[:, :3], np.zeros((0, 2)), WORDS).data) == 3
    with pytest.raises(InputError, match="Losses of learning have shape"):
        learning_curve(losses[:, :1], [], WORDS)

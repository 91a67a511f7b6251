"""Pictures of attention: each cell where its tokens stand, nothing above the diagonal, and plain texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasp_core.errors import InputError
from fasp_core.figures import DARK, LIGHT, Words, attention_map, attention_maps
from fasp_core.figures.attention import WIDE


def weights(n: int, heads: int = 1, seed: int = 0) -> np.ndarray:
    w = np.tril(np.random.default_rng(seed).random((heads, n, n)) + 0.01)
    out: np.ndarray = w / w.sum(-1, keepdims=True)
    return out


def labels(n: int) -> list[str]:
    return [f"<b>{i}" for i in range(n)]


@settings(deadline=None, max_examples=6)
@given(st.integers(1, 70), st.booleans())
def test_cells_stand_where_their_tokens_do(n: int, dark: bool) -> None:
    w = weights(n)[0]
    fig = attention_map(w, labels(n), Words("<i>t</i>", dark=dark))
    z = np.asarray(fig.data[0].z, float)
    for i in range(n):
        for j in range(n):
            if j <= i:
                assert z[i, j] == w[i, j]
                said = f"<b>&lt;b&gt;{i}</b> looks at <b>&lt;b&gt;{j}</b><br>weight {w[i, j]:.3f}"
                assert fig.data[0].text[i][j] == said
            else:
                assert np.isnan(z[i, j])
                assert fig.data[0].text[i][j] == ""
    assert fig.layout.yaxis.range[0] > fig.layout.yaxis.range[1], "the first query is on top"
    assert list(fig.layout.yaxis.ticktext) == [f"&lt;b&gt;{i}" for i in range(n)]
    x = fig.layout.xaxis
    assert [f"&lt;b&gt;{i}" for i in x.tickvals] == list(x.ticktext)
    assert min(n, WIDE // 2) <= len(x.tickvals) <= WIDE
    assert "&lt;i&gt;t" in fig.layout.title.text


def test_colors_show_small_weights_and_are_the_same_in_every_picture() -> None:
    for theme, dark in ((LIGHT, False), (DARK, True)):
        one = attention_map(weights(5)[0], labels(5), Words("", dark=dark)).data[0]
        assert (one.zmin, one.zmax) == (0, 1)
        assert one.colorscale[0] == (0.0, theme.neutral)
        assert one.colorscale[-1] == (1.0, theme.scale[0])
        places = [place for place, _ in one.colorscale]
        assert places == pytest.approx([(i / (len(places) - 1)) ** 2 for i in range(len(places))])


def test_small_pictures_are_those_of_their_heads() -> None:
    w = weights(4, heads=6)
    fig = attention_maps(w, labels(4), [f"<h{i}>" for i in range(6)], chosen=2)
    for i, trace in enumerate(fig.data):
        np.testing.assert_array_equal(np.tril(np.nan_to_num(np.asarray(trace.z, float))), w[i])
        assert (trace.xaxis or "x").removeprefix("x") == (trace.yaxis or "y").removeprefix("y")
    titles = [a.text for a in fig.layout.annotations]
    assert titles == [f"<b>&lt;h{i}&gt;</b>" if i == 2 else f"&lt;h{i}&gt;" for i in range(6)]
    assert len({t.xaxis for t in fig.data}) == 6
    assert fig.layout.height > attention_maps(w[:4], labels(4), list("abcd")).layout.height


@pytest.mark.parametrize(
    "bad",
    [
        lambda: attention_map(np.ones((2, 3)) / 3, ["a", "b"], Words("")),
        lambda: attention_map(np.eye(2), ["a"], Words("")),
        lambda: attention_map(2 * np.eye(2), ["a", "b"], Words("")),
        lambda: attention_map(np.full((2, 2), np.nan), ["a", "b"], Words("")),
        lambda: attention_map(np.ones((0, 0)), [], Words("")),
        lambda: attention_maps(np.ones((0, 2, 2)), ["a", "b"], []),
        lambda: attention_maps([np.eye(2)], ["a", "b"], ["one", "two"]),
    ],
)
def test_what_does_not_fit_is_refused(bad: Any) -> None:
    with pytest.raises(InputError):
        bad()

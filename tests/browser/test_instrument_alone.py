"""The instrument's script on a blank page, called as Streamlit calls it: late endings, and answers that never come."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.drag import made_up
from pages.instrument import instrument
from pages.instrument.sent import Rule, Strength

pytestmark = pytest.mark.browser


def shown(done: int = 0, prune: Iterable[int] = (), **more: Any) -> dict[str, Any]:
    """What the page tells the script of a tiny model."""
    return replace(made_up(3, 4)[0], done=done, prune=sorted(prune), **more).sent()


@pytest.fixture
def page(browser: Any) -> Generator[Any]:
    """A blank page with a shadow tree for the instrument: `call(data)` draws it, `sent` is what it told the page."""
    page = browser.new_page()
    page.clock.install()
    page.goto("about:blank")
    page.evaluate(
        """async text => {
            const url = URL.createObjectURL(new Blob([text], {type: 'text/javascript'}));
            const script = (await import(url)).default;
            const host = document.createElement('div');
            document.body.append(host);
            const parentElement = host.attachShadow({mode: 'open'});
            const field = document.createElement('textarea');
            document.body.append(field);
            Object.assign(window, {sent: [], drawn: [], field, root: parentElement});
            const setStateValue = (name, told) => (name === 'acts' ? sent : drawn).push(told);
            const inList = data => data instanceof Uint8Array ? data : [data]; // as the page sends them
            window.call = data => script({data: inList(data), setStateValue, parentElement});
            window.press = (key, at = root.querySelector('[role=gridcell]')) => at.dispatchEvent(new KeyboardEvent(
                'keydown', {key, ctrlKey: key !== ' ', bubbles: true, composed: true, cancelable: true})); }""",
        instrument.script(),
    )
    yield page
    page.close()


def test_keys_go_back_and_forth_once_whatever_call_ends(page: Any) -> None:
    """Streamlit ends a call that the next has overtaken when it likes: a key is a step once, wherever it is pressed."""
    page.evaluate("data => { const end = call(data); window.end = call(data); end(); }", shown())
    page.evaluate("() => press('z')")
    page.evaluate("() => end()")
    page.evaluate("data => { call(data)(); call(data); }", shown())
    page.evaluate("() => press('y', document.body)")
    queue = page.evaluate("() => sent.at(-1)")
    assert [one["step"] for one in queue] == [-1, 1]
    assert len(page.evaluate("() => sent")) == 2
    assert page.evaluate("() => [press('z'), press('x'), press('z', field)]") == [False, True, True], "the text's own"
    assert page.evaluate("() => sent.at(-1).length") == 3
    page.evaluate("() => { document.body.replaceChildren(); press('z', document.body); }")
    assert len(page.evaluate("() => sent")) == 3


def test_the_page_hears_when_it_is_drawn_first(page: Any) -> None:
    """What the page has below waits for that; a later number is another value, which a new server hears too."""
    page.evaluate("data => call(data)", {**shown(), "first": True})
    assert page.evaluate("() => root.querySelectorAll('.instrument [aria-label]').length") > 12
    page.clock.run_for(10)
    page.evaluate("data => call(data)", {**shown(), "first": False})
    page.clock.run_for(10)
    assert page.evaluate("() => drawn.length") == 1
    page.evaluate("data => call(data)", {**shown(), "first": True})
    page.clock.run_for(10)
    first, second = page.evaluate("() => drawn")
    assert second > first > 0


def test_an_instrument_that_left_hears_no_keys(page: Any) -> None:
    page.evaluate("data => { call(data)(); press('z', document.body); }", shown())
    assert page.evaluate("() => sent") == []
    page.evaluate("data => { call(data); press('z', document.body); }", shown())
    assert len(page.evaluate("() => sent")) == 1


def test_the_zoom_that_was_pressed_keeps_the_focus(page: Any) -> None:
    page.evaluate("data => call(data)", made_up(80, 64)[0].sent())
    page.evaluate("() => { const two = root.querySelector('[data-zoom=\"2\"]'); two.focus(); two.click(); }")
    assert page.evaluate("() => [root.activeElement?.dataset.zoom, root.activeElement?.ariaPressed]") == ["2", "true"]


def test_a_key_takes_back_what_a_slider_has_not_told_yet(page: Any) -> None:
    page.evaluate("data => call(data)", shown())
    page.evaluate(
        "() => { const s = root.querySelector('input'); s.value = 0.5; s.dispatchEvent(new Event('input')); }"
    )
    page.evaluate("() => press('z')")
    first, second = page.evaluate("() => sent.at(-1)")
    assert (first["gamma"], second["step"]) == (0.5, -1)
    page.clock.fast_forward(1000)
    assert len(page.evaluate("() => sent")) == 2


def test_what_a_hand_does_while_the_page_goes_back_is_meant_for_the_set_that_comes(page: Any) -> None:
    page.evaluate("data => { call(data); press('z'); press(' '); press('z'); press(' '); }", shown(prune=[5, 7]))
    (first,) = page.evaluate("() => sent.at(-1)")
    assert first["step"] == -1
    page.evaluate("data => call(data)", shown(first["n"], prune=[7]))
    act, second = page.evaluate("() => sent.at(-1)")
    assert not {5, 7} & {*act["prune"], *act["keep"], *act["leave"]}, "5 is from before the step, 7 the page knows"
    assert (act["head"] in act["prune"] + act["keep"], second["step"]) == (True, -1)
    page.evaluate("data => call(data)", shown(second["n"]))
    (last,) = page.evaluate("() => sent.at(-1)")
    assert (last["n"] > second["n"], 7 in last["prune"] + last["leave"]) == (True, False)


def test_a_slider_waits_for_the_set_that_comes(page: Any) -> None:
    page.evaluate("data => { call(data); press('z'); }", shown(prune=[5]))
    (step,) = page.evaluate("() => sent.at(-1)")
    page.evaluate(
        "() => { const s = root.querySelector('input'); s.value = 0.5; s.dispatchEvent(new Event('input')); }"
    )
    page.clock.fast_forward(1000)
    assert len(page.evaluate("() => sent")) == 1
    page.evaluate("data => call(data)", shown(step["n"]))
    page.clock.fast_forward(1000)
    (act,) = page.evaluate("() => sent.at(-1)")
    assert (act["gamma"], act["prune"]) == (0.5, [])
    assert page.evaluate("() => root.querySelector('input').value") == "0.5"


def test_an_act_is_told_again_until_the_page_has_acted_on_it(page: Any) -> None:
    page.evaluate("data => { call(data); press(' '); }", shown())
    (first,) = page.evaluate("() => sent")
    assert [one["n"] for one in first] == [first[0]["n"]]
    assert first[0]["prune"] + first[0]["keep"] == [first[0]["head"]]
    page.clock.fast_forward(30_000)
    told = page.evaluate("() => sent")
    assert 2 <= len(told) <= 4, "ever more rarely"
    assert all({**one, "tries": 0} == {**first[0], "tries": 0} for (one,) in told), "the same act"
    assert len({str(acts) for acts in told}) == len(told), "each time another value, or nobody would hear it"
    page.evaluate("data => { call(data); }", shown(first[0]["n"], first[0]["prune"]))
    page.clock.fast_forward(1_000_000)
    assert page.evaluate("() => sent.length") == len(told), "answered"


def test_an_instrument_that_has_left_the_page_is_silent(page: Any) -> None:
    page.evaluate("data => { call(data); press(' '); document.body.replaceChildren(); }", shown())
    page.clock.fast_forward(100_000)
    assert page.evaluate("() => sent.length") == 1


def test_the_width_is_followed_after_a_late_ending(page: Any) -> None:
    page.evaluate("data => { const end = call(data); call(data); end(); }", shown())
    wide = page.evaluate("() => document.body.firstChild.shadowRoot.querySelector('.board').clientWidth")
    page.evaluate("() => { document.body.style.width = '240px'; }")
    page.wait_for_function(
        "wide => document.body.firstChild.shadowRoot.querySelector('.board').clientWidth < wide", arg=wide
    )


def test_the_height_is_followed(page: Any) -> None:
    page.set_viewport_size({"width": 1000, "height": 900})
    page.evaluate("data => call(data)", made_up(30, 30)[0].sent())
    high = page.evaluate("() => root.querySelector('.board').clientHeight")
    page.set_viewport_size({"width": 1000, "height": 500})
    page.wait_for_function("high => root.querySelector('.board').clientHeight < high", arg=high)


NOTHING = {"gamma": None, "alpha": None, "strength": None, "prune": [], "keep": [], "leave": [], "gains": []}


def last(page: Any) -> dict[str, Any]:
    """The last act that the page was told, but for its number and head."""
    act = page.evaluate("() => sent.at(-1).at(-1)")
    return {name: act[name] for name in NOTHING}


def test_an_act_says_what_the_hand_changed_and_nothing_else(page: Any) -> None:
    """Whatever was changed elsewhere on the page since it told of itself stays."""
    page.evaluate("data => { call(data); press(' '); }", shown(prune=[5], gains={6: 0.4}))
    first = last(page)
    head = page.evaluate("() => sent.at(-1).at(-1).head")
    assert {**first, "prune": [], "keep": []} == NOTHING
    assert first["prune"] + first["keep"] == [head]
    page.evaluate("() => press(' ')")
    assert last(page) == {**NOTHING, "leave": [head]}
    page.evaluate(
        "() => { const s = root.querySelector('input'); s.value = 0.5; s.dispatchEvent(new Event('input')); }"
    )
    page.clock.fast_forward(1000)
    assert last(page) == {**NOTHING, "gamma": 0.5}


def test_a_head_is_turned_by_what_reads_the_page_aloud(page: Any) -> None:
    """Such a reader clicks a cell; a pointer does not reach it, so that its click counts once."""
    page.evaluate("data => { call(data); root.querySelectorAll('[role=gridcell]')[2].click(); }", shown())
    assert len(page.evaluate("() => sent")) == 1
    assert page.evaluate("() => sent[0][0].head === root.querySelectorAll('[role=gridcell]')[2].head")
    x, y = page.evaluate("() => { const b = root.querySelector('.board').getBoundingClientRect(); return [b.x, b.y]; }")
    page.mouse.click(x + 4, y + 4)
    assert len(page.evaluate("() => sent")) == 2


def test_names_follow_the_method(page: Any) -> None:
    rule = made_up(3, 4)[0].rule
    for method in ("FASP", "bias only"):
        page.evaluate("data => call(data)", shown(alpha=0.3, gamma=0.0, method=method, rule=rule))
        page.clock.fast_forward(1000)
        names = page.evaluate("() => [...root.querySelectorAll('[role=gridcell]')].map(c => c.ariaLabel)")
        assert [f"pruned by {method}" in name for name in names if "pruned" in name] == [True] * 3


def dragged(page: Any, *after: str) -> None:
    """Press the first head with Alt, draw its gate down by half, and then dispatch events."""
    page.evaluate(
        """after => { const board = root.querySelector('.board'), { x, y } = board.getBoundingClientRect();
            board.setPointerCapture = () => {};
            const event = (name, by) => board.dispatchEvent(new PointerEvent(name,
                { button: 0, isPrimary: true, pointerId: 1, altKey: true, clientX: x + 4, clientY: y + 4 + by }));
            window.event = event;
            event('pointerdown', 0); event('pointermove', 30);
            for (const name of after) event(name, 30); }""",
        after,
    )


def test_a_gate_that_is_dragged_stays_in_the_hand(page: Any) -> None:
    """News of the page, such as of a measurement that has ended, do not take it away."""
    page.evaluate("data => call(data)", shown(alpha=0.0))
    dragged(page)
    page.evaluate("data => call(data)", shown(alpha=0.0, prune=[5]))
    page.evaluate("() => event('pointerup', 30)")
    head = page.evaluate("() => sent.at(-1).at(-1).head")
    assert last(page) == {**NOTHING, "gains": [[head, 0.5]]}


def test_a_drag_that_is_broken_off_is_told_as_it_stands(page: Any) -> None:
    page.evaluate("data => call(data)", shown(alpha=0.0))
    dragged(page, "pointercancel")
    head = page.evaluate("() => sent.at(-1).at(-1).head")
    assert last(page) == {**NOTHING, "gains": [[head, 0.5]]}


@pytest.mark.parametrize(("alpha", "wanted"), [(0.0, {"leave": [0]}), (0.4, {"keep": [0]})])
def test_a_gate_that_is_raised_from_0_counts(page: Any, alpha: float, wanted: dict[str, Any]) -> None:
    """A head that was pruned by hand is left to the method, and kept where that would prune it."""
    rule = replace(made_up(3, 4)[0].rule, cost=[*range(12)])
    page.evaluate("data => call(data)", shown(prune=[0], alpha=alpha, gamma=0.0, rule=rule))
    page.evaluate(
        "() => { const cell = [...root.querySelectorAll('[role=gridcell]')].find(c => c.head === 0); cell.focus();"
        " cell.dispatchEvent(new KeyboardEvent('keydown', {key: '+', bubbles: true})); }"
    )
    page.clock.fast_forward(1000)
    assert last(page) == {**NOTHING, **wanted, "gains": [[0, 0.1]]}


GAINS = {
    "rule": Rule(12, None, None, [], []),
    "strength": Strength(
        1.0, [0.0, 0.5, 1.5, *[1.0] * 9], [0, 0.5, 1], [0, 0.01, 0.05], [0, -0.2, -0.5], ("±1%", "±2%"), "lines"
    ),
    "base": (20.0, 4.0),
}
DRAG = """s => { const input = root.querySelector('#strength'), before = sent.length; input.value = s;
    input.dispatchEvent(new Event('input')); root.instrument.frame();
    const at = name => root.querySelector(`[data-head=${name}]`).dataset.state;
    const { perplexity, gap } = root.instrument.found;
    root.instrument.name(); // as once the hand rests
    return { gates: [...root.instrument.gates], states: ['L0H0', 'L0H1', 'L0H2', 'L0H3'].map(at),
        perplexity, gap, told: sent.length - before,
        off: root.querySelector('[data-estimate=gap]').nextElementSibling.textContent,
        count: root.querySelector('#strength').parentNode.querySelector('.count').textContent,
        shown: [...root.querySelectorAll('.slider')].filter(e => !e.hidden).length }; }"""


def test_learned_gains_have_one_slider_which_all_follows_in_every_frame(page: Any) -> None:
    """Gates and estimates at each strength at once; the page hears when the hand rests."""
    shown_at, packed = made_up(3, 4)
    data = replace(shown_at, **GAINS).sent()
    page.evaluate("([packed, data]) => { call(Uint8Array.from(packed)); call(data); }", [list(packed), data])
    whole = page.evaluate("() => root.instrument.found.perplexity") / np.exp(0.05)
    base = page.evaluate("() => root.instrument.found.gap") / 0.5
    for s, nats, gap in ((0.5, 0.01, -0.2), (0.75, 0.03, -0.35), (0.25, 0.005, -0.1), (0.0, 0.0, 0.0)):
        found = page.evaluate(DRAG, s)
        assert found["shown"] == 1
        assert found["gates"][:4] == pytest.approx([1 - s, 1 - 0.5 * s, 1 + 0.5 * s, 1])
        assert found["perplexity"] == pytest.approx(whole * np.exp(nats))
        assert found["gap"] == pytest.approx(base * (1 + gap))
        assert found["off"].endswith("±2%")
        assert found["count"] == ("0 of 12 scaled, 0 pruned" if s == 0 else "3 of 12 scaled, 0 pruned")
        assert not found["told"]
    assert found["states"] == ["kept"] * 4
    found = page.evaluate(DRAG, 1.0)
    assert found["states"] == ["pruned by FASP", "kept, scaled by 0.5", "kept, scaled by 1.5", "kept"]
    page.evaluate(DRAG, 0.6)
    page.clock.fast_forward(150)
    assert last(page) == {**NOTHING, "strength": 0.6}


def test_what_a_hand_sets_stays_on_top_of_a_strength(page: Any) -> None:
    """A lock, a force and a gain by hand do not move with the slider, and the estimate counts them beside."""
    shown_at, packed = made_up(3, 4)
    data = replace(shown_at, **GAINS, keep=[1], prune=[3], gains={2: 0.7}).sent()
    page.evaluate("([packed, data]) => { call(Uint8Array.from(packed)); call(data); }", [list(packed), data])
    for s in (0.3, 0.9):
        found = page.evaluate(DRAG, s)
        assert found["gates"][:4] == pytest.approx([1 - s, 1, 0.7, 0])
        assert found["off"].endswith("±12%"), "the error of single heads, not of the lines"
    cell = "[...root.querySelectorAll('[role=gridcell]')].find(c => c.head === 0)"
    page.clock.fast_forward(1000)
    page.evaluate(f"() => {cell}.dispatchEvent(new KeyboardEvent('keydown', {{key: '+', bubbles: true}}))")
    assert page.evaluate("() => root.instrument.local.gains[0]") == pytest.approx(0.2)


def test_a_learned_gate_that_a_hand_brings_to_1_is_kept(page: Any) -> None:
    page.evaluate("data => call(data)", replace(made_up(3, 4)[0], **GAINS).sent())
    page.evaluate("() => { root.instrument.scale([[1, 1.0]]); root.instrument.tell(1); }")
    assert last(page) == {**NOTHING, "keep": [1]}
    assert page.evaluate("() => root.instrument.gates[1]") == 1


def test_gates_of_heads_that_are_off_are_not_lost(page: Any) -> None:
    """FASP prunes a head that is scaled, and leaves it again as alpha falls: it is scaled as before."""
    page.evaluate("data => call(data)", shown(alpha=0.3, gamma=0.0, gains={3: 0.6}))
    page.evaluate(
        "() => { const s = root.querySelectorAll('input')[1]; s.value = 0; s.dispatchEvent(new Event('input')); }"
    )
    page.clock.fast_forward(1000)
    assert last(page) == {**NOTHING, "alpha": 0}
    cell = "[...root.querySelectorAll('[role=gridcell]')].find(c => c.head === 3)"
    assert "scaled by 0.6" in page.evaluate(f"() => {cell}.dataset.state")

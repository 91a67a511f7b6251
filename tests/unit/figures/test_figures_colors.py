"""Colors by WCAG's formula and for every color blindness, short numbers, and the house that figures live in."""

from __future__ import annotations

import ast
import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasp_core import figures
from fasp_core.figures import (
    BASE,
    DARK,
    LIGHT,
    PRUNED,
    Theme,
    short,
)
from fasp_core.figures.theme import FONT, WASH
from tests.support.figures import contrast, linear, luminance, rgb

ROOT = Path(__file__).resolve().parents[3]
THEMES = [pytest.param(LIGHT, id="light"), pytest.param(DARK, id="dark")]
finite = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, min_value=-1e300, max_value=1e300)


# --- colors


def on_scale(theme: Theme, place: float) -> np.ndarray:
    """Color at `place` from -1 to 1, as Plotly interpolates: straight in sRGB."""
    stops = np.array([rgb(color) for color in theme.scale])
    return np.array([np.interp(place, np.linspace(-1, 1, len(stops)), stops[:, i]) for i in range(3)])


PLACES = np.linspace(-1, 1, 81)


@pytest.mark.parametrize("page", ["#FFFFFF", "#0E1117", LIGHT.page, DARK.page])
@pytest.mark.parametrize("color", [BASE, PRUNED])
def test_the_pair_stands_out_on_every_page(color: str, page: str) -> None:
    assert contrast(rgb(color), rgb(page)) >= 3


@pytest.mark.parametrize("theme", THEMES)
def test_words_are_legible(theme: Theme) -> None:
    assert contrast(rgb(theme.text), rgb(theme.page)) >= 7
    assert contrast(rgb(theme.faint), rgb(theme.page)) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
def test_marks_drown_on_no_cell(theme: Theme) -> None:
    ink, neutral = rgb(theme.ink), rgb(theme.neutral)
    for place in PLACES:
        full = on_scale(theme, place)
        assert contrast(ink, full) >= 3
        assert contrast(ink, (1 - WASH) * full + WASH * neutral) >= 3
    assert contrast(ink, rgb(theme.missing)) >= 3
    assert contrast(ink, rgb(theme.halo)) >= 10


@pytest.mark.parametrize("theme", THEMES)
def test_the_scale_is_fair_to_both_signs_and_recedes_at_zero(theme: Theme) -> None:
    page = luminance(rgb(theme.page))
    away = np.array([abs(luminance(on_scale(theme, place)) - page) for place in PLACES])
    half = len(PLACES) // 2
    assert (np.diff(away[half:]) > 0).all()  # further from the page with every step from 0
    assert (np.diff(away[: half + 1]) < 0).all()
    assert contrast(on_scale(theme, -1), on_scale(theme, 1)) < 1.3
    assert min(contrast(on_scale(theme, end), rgb(theme.neutral)) for end in (-1, 1)) >= 3


# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# IEEE TVCG 15(6), 2009: severity 1.0, on linear RGB
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(color: np.ndarray, deficiency: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of an sRGB color as someone with the deficiency sees it."""
    seen = np.clip(deficiency @ linear(color), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    ratio = xyz / [0.9505, 1, 1.089]
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colors_stay_apart_with_every_color_blindness(deficiency: str) -> None:
    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(lab(a, DEFICIENCIES[deficiency]) - lab(b, DEFICIENCIES[deficiency])))

    assert apart(rgb(BASE), rgb(PRUNED)) > 20  # 2.3 is just noticeable
    for theme in (LIGHT, DARK):
        assert apart(on_scale(theme, -1), on_scale(theme, 1)) > 50
        assert apart(on_scale(theme, -0.5), on_scale(theme, 0.5)) > 20
        for end in (-1, 1):
            assert apart(on_scale(theme, end), rgb(theme.missing)) > 20


# --- the house


def test_the_figures_wear_the_page_font_and_colors() -> None:
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))["theme"]
    assert config["font"] == FONT
    for theme, name in ((LIGHT, "light"), (DARK, "dark")):
        assert theme.page == config[name]["backgroundColor"]
        assert theme.text == config[name]["textColor"]


def test_figures_know_neither_the_screen_nor_the_model() -> None:
    for path in Path(figures.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("streamlit", "torch")]
            assert all(
                n in ("fasp_core.errors", "fasp_core.typing") or ".figures" in n
                for n in names
                if n.startswith("fasp_core")
            )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (0.0021, "0.0021"), (-13.4, "−13"), (2.1e8, "2.1×10⁸"), (-1e-6, "−10⁻⁶"), (99999, "10⁵"),
        (0.00012, "0.00012"), (12345, "12000"), (math.nan, "?"), (math.inf, "∞"), (-math.inf, "−∞"),
    ],
)  # fmt: skip
def test_numbers_are_short(number: float, text: str) -> None:
    assert short(number) == text


@given(finite.filter(bool))
def test_short_numbers_read_back_to_two_digits(number: float) -> None:
    text = short(number).replace("−", "-")
    if "10" in text and any(digit in text for digit in "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"):
        mantissa, power = text.split("×") if "×" in text else ("-1" if number < 0 else "1", text.lstrip("-"))
        exponent = power[2:].translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
        text = f"{mantissa}e{exponent}"
    assert float(text) == float(f"{number:.1e}")

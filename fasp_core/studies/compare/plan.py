"""What a comparison of methods is made of: its plan, and the choices of heads that are candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fasp_core.data.text import TextConfig
from fasp_core.errors import InputError
from fasp_core.heads.selection import METHODS, select
from fasp_core.metrics.meters import BiasConfig
from fasp_core.scoring.impact_table import ImpactTable

SEARCH = "search"  # sets that come from fasp_core.scoring.search, beside those of the methods that only rank heads
Side = Literal["valid", "test"]
SIDES: tuple[Side, Side] = ("valid", "test")
HELD_OUT = 16_384  # tokens: the text of the test side lies behind all that scores are made on


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes
    ----------
    axis, reading : the scores that sets are chosen by ("neutral" or "counted"); both readings are measured.
    gammas, alphas : shares of all heads; gamma is FASP's alone.
    seeds : how many random sets for each alpha.
    prompts : at least, on each side.
    tokens : of each of the two texts.
    """

    axis: str
    reading: str = "neutral"
    gammas: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    alphas: tuple[float, ...] = (0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2)
    seeds: int = 5
    prompts: int = 450
    tokens: int = 1024

    def __post_init__(self) -> None:
        if not self.alphas or not self.gammas or self.seeds < 1:
            raise InputError("A comparison needs at least one gamma, one alpha and one seed: name them.")

    def bias(self, side: Side) -> BiasConfig:
        return BiasConfig(self.axis, split=side, n_prompts=self.prompts)

    def text(self, side: Side) -> TextConfig:
        return TextConfig(tokens=self.tokens, skip=HELD_OUT if side == "test" else 0)

    def candidates(self, impacts: ImpactTable) -> list[Candidate]:
        """Every choice of the plan, FASP first; several of them may be the same set."""
        scores = impacts.head_scores(self.reading)

        def one(method: str, alpha: float, gamma: float | None = None, seed: int | None = None) -> Candidate:
            chosen = select(scores, method, gamma or 0.0, alpha, seed=seed or 0)
            return Candidate(method, gamma, alpha, seed, chosen.pruned)

        found = [one("fasp", alpha, gamma=gamma) for gamma in self.gammas for alpha in self.alphas]
        for method in METHODS:
            if method == "random":
                found += [one(method, alpha, seed=seed) for seed in range(self.seeds) for alpha in self.alphas]
            elif method != "fasp":
                found += [one(method, alpha) for alpha in self.alphas]
        return found


@dataclass(frozen=True)
class Candidate:
    """A set of heads and the choice that it comes from.

    Attributes
    ----------
    gamma : of FASP, else None.
    alpha : share of heads asked for; the set may be smaller.
    seed : of the methods that draw at random, else None.
    heads : flat ids, ascending.
    """

    method: str
    gamma: float | None
    alpha: float
    seed: int | None
    heads: tuple[int, ...]

    @property
    def title(self) -> str:
        """Such as `fasp, gamma 0.3, alpha 0.05`."""
        gamma = "" if self.gamma is None else f", gamma {self.gamma:g}"
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.method}{gamma}, alpha {self.alpha:g}{seed}"

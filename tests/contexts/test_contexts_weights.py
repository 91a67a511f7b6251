"""Single weights: scores against plain loops, and a model that is bit for bit what it was."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fasp_core.errors import InputError
from fasp_core.model.language_model import LanguageModel
from fasp_core.storage.store import Store
from fasp_core.studies.contexts import matrix, scenarios, weights
from fasp_core.studies.contexts.chats import ask
from fasp_core.studies.contexts.removal import Removal
from tests.support.contexts import FILE, instruct_lm
from tests.support.worlds import write_text

HOUSE = scenarios.parse(FILE, "rooms.toml").scenarios[0]


@pytest.fixture(params=["llama", "gpt2"])
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return instruct_lm(request.param)


def test_scores_and_choice_by_hand(lm: LanguageModel) -> None:
    norms = {name: weights.input_norms(lm, HOUSE, [name]) for name in ("red", "tall")}
    both = weights.input_norms(lm, HOUSE, ["red", "tall"])
    chosen = weights.stands_out(lm, norms["red"], norms["tall"], 0.3, 0.3)
    places = weights.projections(lm)
    assert len(places) == lm.n_layers * (7 if lm.name == "tiny-llama" else 4)
    assert sum(len(at) for at in chosen.values()) > 0
    for place, module in places.items():
        torch.testing.assert_close(both[place] ** 2, norms["red"][place] ** 2 + norms["tall"][place] ** 2)
        seen: list[torch.Tensor] = []
        handle = module.register_forward_pre_hook(lambda _m, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            lm.model(torch.tensor([ask(lm, HOUSE, "red")[1]]))
        handle.remove()
        torch.testing.assert_close(norms["red"][place], seen[0].reshape(-1, seen[0].shape[-1]).double().norm(dim=0))
        weight = module.weight.detach().double()
        into_rows = isinstance(module, torch.nn.Linear)
        top = []
        for name, share in (("red", 0.3), ("tall", 0.3)):
            n = norms[name][place]
            score = {}
            for i in range(weight.shape[0]):
                for j in range(weight.shape[1]):
                    score[i * weight.shape[1] + j] = float(weight[i, j].abs() * n[j if into_rows else i])
            ranked = sorted(score, key=lambda k: -score[k])
            top.append(set(ranked[: math.ceil(share * len(score))]))
        assert set(chosen[place].tolist()) == top[0] - top[1]


def test_weights_are_off_inside_and_back_outside(lm: LanguageModel) -> None:
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        before = lm.model(ids).logits
        state = {k: v.clone() for k, v in lm.model.state_dict().items()}
        chosen = {place: torch.arange(0, module.weight.numel(), 3) for place, module in weights.projections(lm).items()}
        with weights.without(lm, chosen):
            for place, module in weights.projections(lm).items():
                flat = module.weight.flatten()
                assert not flat[chosen[place]].any()
                assert flat.count_nonzero() == flat.numel() - len(chosen[place])
            assert not torch.equal(lm.model(ids).logits, before)
        assert torch.equal(lm.model(ids).logits, before)
    assert all(torch.equal(v, lm.model.state_dict()[k]) for k, v in state.items())
    with pytest.raises(RuntimeError, match="inside"), weights.without(lm, chosen):
        raise RuntimeError("inside")
    assert all(torch.equal(v, lm.model.state_dict()[k]) for k, v in state.items())


def test_a_text_that_was_changed_at_its_place_is_measured_again(lm: LanguageModel, tmp_path: Path) -> None:
    place, module = next(iter(weights.projections(lm).items()))
    removal, store = Removal(weights={place: torch.arange(0, module.weight.numel(), 3)}), Store(tmp_path / "store")
    before = matrix._nll(lm, removal, write_text(tmp_path, 60, tokens=40, window=20, stride=20), store)
    text = write_text(tmp_path, 60, tokens=40, window=20, stride=20)
    Path(text.source).write_text(" ".join(reversed(Path(text.source).read_text().split())))
    after = matrix._nll(lm, removal, text, store)
    assert before.sums.sum() != after.sums.sum()


def test_the_same_norms_leave_nothing_out(lm: LanguageModel) -> None:
    norms = weights.input_norms(lm, HOUSE, ["red"])
    assert not any(len(at) for at in weights.stands_out(lm, norms, norms, 0.1, 0.1).values())
    every = weights.stands_out(lm, norms, norms, 1.0, 0.0)
    assert {p: len(at) for p, at in every.items()} == {p: m.weight.numel() for p, m in weights.projections(lm).items()}
    with pytest.raises(InputError, match="Shares"):
        weights.stands_out(lm, norms, norms, 1.1, 0)

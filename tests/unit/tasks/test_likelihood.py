"""Log-likelihoods of continuations against whole passages, one by one, by transformers alone."""

from __future__ import annotations

import pytest
import torch

from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.language_model import LanguageModel
from fasp_core.tasks.likelihood import encode_pair, log_likelihoods
from tests.support.made import tiny_questions
from tests.support.tiny import CONTEXT, tiny_lm, tiny_text

PAIRS = [(q.context, answer) for q in tiny_questions(6, 3) for answer in q.answers]


def one_by_one(lm: LanguageModel, before: list[int], after: list[int]) -> tuple[float, bool]:
    """A whole passage by itself: summed log-softmax, and argmax."""
    row = [*before, *after][-CONTEXT - 1 :]
    with torch.no_grad():
        logits = lm.model(torch.tensor([row[:-1]])).logits[0, -len(after) :].double()
    log_p = logits.log_softmax(-1)[range(len(after)), after]
    return float(log_p.sum()), logits.argmax(-1).tolist() == after


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", "gemma3_text"])
@pytest.mark.parametrize("heads", ["", "L0H3,L1H0"])
def test_as_one_by_one(kind: str, heads: str) -> None:
    lm = tiny_lm(kind)
    pairs = [encode_pair(lm, str(context), answer) for context, answer in PAIRS]
    with masked(lm, PruneSet.parse(heads) if heads else PruneSet()):
        found = log_likelihoods(lm, pairs)
        whole = [one_by_one(lm, *pair) for pair in pairs]
    assert found.values == pytest.approx([value for value, _ in whole], abs=1e-4)
    assert found.greedy.tolist() == [greedy for _, greedy in whole]
    assert not found.cut.any()


def test_greedy_where_the_model_would_write_it() -> None:
    lm = tiny_lm("llama")
    before = encode_pair(lm, "The house is", " red")[0]
    row = list(before)
    for _ in range(4):
        row.append(int(lm.model(torch.tensor([row])).logits[0, -1].argmax()))
    written = row[len(before) :]
    other = [*written[:-1], (written[-1] + 1) % 70]
    assert log_likelihoods(lm, [(before, written), (before, other)]).greedy.tolist() == [True, False]


def test_what_is_too_long_loses_its_beginning() -> None:
    lm = tiny_lm("gpt2")
    pairs = [encode_pair(lm, tiny_text(n, n), " red house") for n in (CONTEXT + 40, 12, CONTEXT - 1, CONTEXT)]
    found = log_likelihoods(lm, pairs)
    assert found.values == pytest.approx([one_by_one(lm, *pair)[0] for pair in pairs], abs=1e-4)
    assert found.cut.tolist() == [True, False, False, True]
    with pytest.raises(InputError, match="more than the 256"):
        log_likelihoods(lm, [([3], [5] * 300)])


def test_spaces_at_the_end_of_a_context_belong_to_what_follows() -> None:
    lm = tiny_lm("gpt2")
    apart = encode_pair(lm, "The house is", " red")
    assert encode_pair(lm, "The house is ", "red") == apart
    assert apart[0] + apart[1] == lm.tokens("The house is red")


def test_without_a_context_the_start_token_stands_before() -> None:
    lm = tiny_lm("gpt2")
    assert encode_pair(lm, "", "The house") == ([lm.tokenizer.eos_token_id], lm.tokens("The house"))
    assert encode_pair(lm, "", "<eos>The house")[1] == lm.tokens("The house")
    with pytest.raises(InputError, match="no token of its own"):
        encode_pair(lm, "The house", "")


def test_nothing_asked_nothing_found() -> None:
    assert log_likelihoods(tiny_lm("gpt2"), []).values.shape == (0,)


def test_memory_that_does_not_suffice_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    from fasp_core.tasks import likelihood

    lm = tiny_lm("llama")
    pairs = [encode_pair(lm, str(context), answer) for context, answer in PAIRS[:5]]
    want = log_likelihoods(lm, pairs)
    real = likelihood.final_hidden

    def small(lm, part):
        if len(part.prompts) > 2:
            raise MemoryError
        return real(lm, part)

    monkeypatch.setattr(likelihood, "final_hidden", small)
    found = log_likelihoods(lm, pairs)
    assert found.values == pytest.approx(want.values, abs=1e-4)
    assert found.greedy.tolist() == want.greedy.tolist()

"""Any model that is loaded here, with a prune set, as a model of lm-evaluation-harness, without an export.

    python -m fasp_core.tasks.harness run --model fasp --model_args "pretrained=built-in,heads=L0H3;L2H1" --tasks piqa

In Python: `harness_model()` is a subclass of `lm_eval.api.model.LM`, made when it is first asked for and registered
as `fasp`. `lm_eval` (0.4.13) is installed by whoever uses this; nothing else here imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

from fasp_core.console import log
from fasp_core.errors import InputError
from fasp_core.forward.ablation import masked
from fasp_core.heads.prune_set import PruneSet
from fasp_core.lazy import no_grad, torch
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import load
from fasp_core.model.spec import ModelSpec
from fasp_core.tasks.likelihood import Pair, begun, encode_pair, log_likelihoods, start_token

NAME = "fasp"
LONGEST = 2048  # tokens of a window where the model says no limit, as lm-evaluation-harness has it
NEW_TOKENS = 256  # that are written where a task says no number


@cache
def harness_model() -> Any:
    """The class, registered with lm-evaluation-harness.

    Raises
    ------
    InputError
        `lm_eval` is not installed.
    """
    try:
        from lm_eval.api.model import LM
        from lm_eval.api.registry import register_model
    except ImportError as error:
        raise InputError(
            f"lm-evaluation-harness cannot be used ({error}): run 'pip install lm-eval==0.4.13'."
        ) from error
    import lm_eval.models  # noqa: F401  # its own models are registered only while there is no other

    @register_model(NAME)
    class FaspModel(LM):
        """A masked model.

        Parameters
        ----------
        pretrained : as `--model` names it, or a `LanguageModel`.
        heads : parts to remove, such as "L0H3;L2H1-4" (a comma would end the argument), or a `PruneSet`.
        dtype, device, bos : as the options of these names.
        others : sizes of batches, which are chosen here.
        """

        def __init__(
            self,
            pretrained: str | LanguageModel = "built-in",
            heads: str | PruneSet = "",
            dtype: str = "float32",
            device: str = "auto",
            bos: str = "auto",
            **others: Any,
        ) -> None:
            super().__init__()
            unknown = set(others) - {"batch_size", "max_batch_size"}
            if unknown:
                raise InputError(
                    f"The model '{NAME}' knows no argument {', '.join(sorted(unknown))}: name pretrained, heads, "
                    "dtype, device or bos."
                )
            if not isinstance(pretrained, LanguageModel):
                pretrained = load(ModelSpec(pretrained, dtype, device, bos))
            self.subject: LanguageModel = pretrained
            self.prune_set = heads if isinstance(heads, PruneSet) else PruneSet.parse(str(heads))
            self.prune_set.gates(self.subject.n_layers, self.subject.n_heads)
            self.prune_set.neuron_gates(self.subject.n_layers, self.subject.n_neurons)
            self._device = self.subject.device

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            found = self._scored([encode_pair(self.subject, *request.args) for request in requests])
            for request, answer in zip(requests, found, strict=True):
                self.cache_hook.add_partial("loglikelihood", request.args, answer)
            return found

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            totals = []
            for request in requests:
                (text,) = request.args
                totals.append(sum(value for value, _ in self._scored(rolling_windows(self.subject, text))))
                self.cache_hook.add_partial("loglikelihood_rolling", (text,), totals[-1])
            return totals

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            texts = []
            for request in requests:
                context, settings = request.args
                with masked(self.subject, self.prune_set):
                    texts.append(written(self.subject, context, settings))
                self.cache_hook.add_partial("generate_until", request.args, texts[-1])
            return texts

        def _scored(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
            with masked(self.subject, self.prune_set):
                found = log_likelihoods(self.subject, pairs)
            return list(zip(found.values.tolist(), found.greedy.tolist(), strict=True))

        @property
        def tokenizer_name(self) -> str:
            return self.subject.name.replace("/", "__")

        def chat_template(self, chat_template: bool | str = False) -> str:
            return str(self.subject.tokenizer.chat_template or "") if chat_template else ""

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return str(
                self.subject.tokenizer.apply_chat_template(
                    chat_history,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            )

    return FaspModel


def rolling_windows(lm: LanguageModel, text: str) -> list[Pair]:
    """A whole text as windows that fit the model, each token predicted once, by what of the text is before it."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    ids, longest = begun(lm, text), lm.max_positions or LONGEST
    lm.require_embeddings(ids, f"The text {text[:40]!r}")
    windows = get_rolling_token_windows(ids, start_token(lm), longest, context_len=1)
    return [make_disjoint_window(window) for window in windows]


@no_grad
def written(lm: LanguageModel, context: str, settings: dict[str, Any]) -> str:
    """What a model writes after a context, the likeliest token at a time, up to a stop.

    Parameters
    ----------
    settings : `until` (a text or several at which it stops), `max_gen_toks`; nothing is sampled.

    Raises
    ------
    InputError
        The task asks for samples, or for more tokens than the model takes.
    """
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

    settings = normalize_gen_kwargs(settings, NEW_TOKENS)
    if settings.get("do_sample") or settings.get("temperature"):
        raise InputError(f"The model '{NAME}' writes the likeliest tokens only: set do_sample to false for this task.")
    stops, most, longest = list(settings["until"]), int(settings["max_gen_toks"]), lm.max_positions or LONGEST
    if most >= longest:
        raise InputError(f"{most:,} tokens are to be written and the model takes {longest:,}: set max_gen_toks lower.")
    ids = begun(lm, context)[most - longest :] or [start_token(lm)]
    lm.require_embeddings(ids, f"The context {context[:40]!r}")

    def stopped(row: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        text = lm.tokenizer.decode(row[0, len(ids) :])
        return torch.tensor([any(stop in text for stop in stops)], device=row.device)

    given = torch.tensor([ids], device=lm.device)
    with lm.lock:
        row = lm.model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=most,
            do_sample=False,
            eos_token_id=sorted(lm.stops) or None,
            pad_token_id=min(lm.stops, default=0),
            stopping_criteria=[stopped],
        )[0, len(ids) :].tolist()
    end = next((i for i, token in enumerate(row) if token in lm.stops), len(row))
    text = lm.tokenizer.decode(row[:end], skip_special_tokens=True)
    return str(postprocess_generated_text(text, handle_stop_sequences(stops, None), None))


def main() -> int:
    """The command line of lm-evaluation-harness, which knows the model `fasp` then; 2 for bad input, in one line."""
    try:
        harness_model()
        from lm_eval.__main__ import cli_evaluate

        cli_evaluate()
    except InputError as error:
        log(f"Error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

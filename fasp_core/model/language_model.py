"""A causal language model as everything here sees it: its shape, its parts, how its texts begin."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fasp_core.errors import InputError
from fasp_core.lazy import nn, torch
from fasp_core.model.architectures import Architecture, columns, positions
from fasp_core.model.identity import ModelId
from fasp_core.model.spec import ABLATIONS, ModelSpec
from fasp_core.model.tokens import Framing, framing, plain_ids, rules, stop_ids

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class LanguageModel:
    """A causal language model, its tokenizer and the shape of its heads.

    `lock` is held by whoever runs the model: masks are hooks on modules that all users share.
    """

    spec: ModelSpec
    model: Any  # transformers PreTrainedModel
    tokenizer: Any
    weights_id: str  # names the weights: a hash of the files, or a hub's repository and commit
    architecture: Architecture
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    notes: tuple[str, ...] = ()  # what whoever uses it has to know of where it came from
    constants: Tensor | None = None  # [L, H, d] what outputs of heads become (`metrics.calibration`); None: zero

    @property
    def name(self) -> str:
        return self.spec.source

    @property
    def id(self) -> ModelId:
        """What results of this model are kept under."""
        device = ModelId.kind(self.device.type, self.spec.dtype)
        how = rules(self.tokenizer, self.model, self.framing)
        taken_out = "" if self.spec.ablation == ABLATIONS[0] else self.spec.ablation
        window = self.longest_window
        return ModelId(self.weights_id, self.spec.dtype, self.framing.bos, how, device, taken_out, longest=window)

    @cached_property
    def framing(self) -> Framing:
        """What stands around every text."""
        return framing(self.tokenizer, self.spec.bos)

    @property
    def stops(self) -> frozenset[int]:
        """Every token that ends a text or a turn, by the model's tokenizer, config or generation config."""
        return stop_ids(self.tokenizer, self.model)[0]

    @property
    def max_positions(self) -> int | None:
        """Most tokens that the model takes at a time; None: any number."""
        return positions(self.model.config)

    @property
    def longest_window(self) -> int | None:
        """Most tokens of text in a window: the beginning token has a place, too."""
        return None if self.max_positions is None else self.max_positions - len(self.framing.begin)

    @property
    def size(self) -> int:
        """N, the number of heads of the whole model."""
        return self.n_layers * self.n_heads

    @property
    def device(self) -> torch.device:
        """Where token ids go and final hidden states come from; a spread model's blocks may lie elsewhere."""
        return input_device(self.model)

    @cached_property
    def blocks(self) -> list[nn.Module]:
        return self.architecture.block_list(self.model)

    def out_proj(self, layer: int) -> nn.Module:
        """The module whose input is the concatenation of a block's heads."""
        return self.blocks[layer].get_submodule(self.architecture.out_proj)

    def mlp_out(self, layer: int) -> nn.Module:
        """The module whose input are a block's hidden units of the MLP."""
        return self.blocks[layer].get_submodule(self.architecture.mlp_out)

    @cached_property
    def n_neurons(self) -> int:
        """Hidden units of each layer's MLP."""
        return int(columns(self.mlp_out(0)).shape[1])

    @cached_property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def head_parameters(self) -> int:
        """Parameters that belong to one head alone: its q rows and output columns, and k and v unless shared."""
        own_kv = 2 if self.n_kv_heads == self.n_heads else 0
        return self.head_dim * int(self.model.config.hidden_size) * (2 + own_kv)

    def neuron_parameters(self) -> int:
        """Weights that belong to one hidden unit of an MLP alone: one or (gated) two rows in, one column out."""
        return int(self.model.config.hidden_size) * (3 if self.architecture.gated_mlp else 2)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text and nothing around it."""
        return plain_ids(self.tokenizer, text)

    def encode(self, text: str, what: str = "", more: int = 0) -> list[int]:
        """Token ids of a prompt, begun as the model is begun; an end that the tokenizer would add is left out.

        Parameters
        ----------
        what : names the prompt where it is refused.
        more : tokens that are to follow it.

        Raises
        ------
        InputError
            A token has no embedding, or the prompt and what follows are longer than the model takes.
        """
        ids = [*self.framing.begin, *self.tokens(text)]
        self.require(ids, what or f"The prompt {text[:40]!r}", more)
        return ids

    def require(self, ids: Sequence[int], what: str, more: int = 0) -> None:
        """Refuse what the model cannot take before it reaches a device: see `encode`. Raises InputError."""
        self.require_embeddings(ids, what)
        most = self.max_positions
        if most is not None and len(ids) + more > most:
            room = f", {more:,} of them for the continuation" if more else ""
            raise InputError(f"{what} has {len(ids):,} tokens and this model takes {most:,}{room}: shorten it.")

    def require_embeddings(self, ids: Sequence[int], what: str) -> None:
        """Refuse token ids beyond the embedding, which on a GPU would end the process. Raises InputError."""
        rows = int(self.model.get_input_embeddings().weight.shape[0])
        outside = next((i for i in ids if not 0 <= i < rows), None)
        if outside is not None:
            token = str(self.tokenizer.convert_ids_to_tokens(outside))
            raise InputError(
                f"{what} holds the token {token!r} (number {outside:,}), which has no embedding in this model (it has "
                f"{rows:,}): take it out, or fit the model's embeddings to its tokenizer."
            )

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] after the final norm -> [..., V] in float32, on the same device."""
        return self.capped(self.model.get_output_embeddings()(hidden).to(hidden.device))

    def capped(self, logits: Tensor) -> Tensor:
        """What the unembedding gives -> logits in float32."""
        logits = logits.float()
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap


def input_device(model: Any) -> torch.device:
    """Where a transformers model, which may be spread over several devices, takes its token ids."""
    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    place = getattr(hook, "execution_device", None)
    return torch.device(model.device if place is None else place)

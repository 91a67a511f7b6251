"""What heads write straight to the next word's logits: direct attribution through the final norm, its scale held.

The last hidden state is a sum of what the embedding and every head and MLP have added, divided by its own size and
multiplied into the unembedding. With that size held at what it was in the pass, all of this is linear, so each head has
its own share of each logit (Elhage et al., A Mathematical Framework for Transformer Circuits, 2021). What later blocks
make of a head's output is no part of its share.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

from fasp_core.errors import InputError
from fasp_core.forward.recorded_pass import final_hidden
from fasp_core.lazy import nn, no_grad, torch
from fasp_core.model.architectures import columns
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import present
from fasp_core.model.packing import Pack

if TYPE_CHECKING:
    from torch import Tensor

Linear: TypeAlias = "Callable[[Tensor], Tensor]"


def require_direct_path(lm: LanguageModel) -> list[nn.Module]:
    """The final norm and what follows it, up to the unembedding.

    Raises
    ------
    InputError
        Outputs of heads do not reach a final norm as they are, as in models that normalise the sum after each block.
    """
    tail: list[Any] = lm.architecture.tail_modules(lm.model)
    if not tail or not _is_norm(tail[0]):
        raise InputError(
            f"{lm.name} normalises the sum in every block and has no final norm, so its heads write nothing straight "
            "to the logits: choose a head of another model."
        )
    return tail


@no_grad
def direct_writes(lm: LanguageModel, batch: Pack, layer: int) -> Tensor:
    """[m, H, D] float32: what each head of a layer adds to the final hidden states at the last token of m prompts.

    The unembedding's product with it is the head's share of the logits, before a cap of them and up to a constant that
    no probability feels.

    Raises as `require_direct_path`.
    """
    norm, *rest = require_direct_path(lm)
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[name] = batch.read(args[0].to(lm.device))[0].float()

        return hook

    projection = lm.out_proj(layer)
    after = lm.architecture.after_attention
    own = lm.blocks[layer].get_submodule(after) if after else None
    with lm.lock, ExitStack() as hooks:
        for name, module in (("heads", projection), ("sum", norm), ("attention", own)):
            if module is not None:
                hooks.callback(module.register_forward_pre_hook(keep(name)).remove)
        final_hidden(lm, batch)
    weight = _columns(projection, lm.device)  # [D, H * head dim]
    heads = seen["heads"].view(len(seen["heads"]), lm.n_heads, -1)
    found = torch.einsum("mhi,dhi->mhd", heads, weight.view(len(weight), lm.n_heads, -1))
    if own is not None:
        found = held(own, seen["attention"])(found)
    found = held(norm, seen["sum"])(found)
    for module in rest:  # OPT's projection to the width of its embedding
        found = found @ _columns(module, lm.device).T
    return found


def _columns(module: nn.Module, device: torch.device) -> Tensor:
    with present(module):
        return columns(module).to(device).float()


def held(norm: nn.Module, x: Tensor) -> Linear:
    """The linear map that a norm is where its scale stays what it is for x [m, D]: of [m, H, D] to the same.

    A bias is no part of it.
    """
    whole = x.float()
    if isinstance(norm, nn.LayerNorm):
        scale = (whole.var(-1, unbiased=False, keepdim=True) + norm.eps).rsqrt()[:, None]
        with present(norm):
            gain = 1.0 if norm.weight is None else norm.weight.detach().to(x.device).float()
        return lambda parts: (parts - parts.mean(-1, keepdim=True)) * scale * gain
    some: Any = norm
    eps = float(getattr(some, "variance_epsilon", None) or some.eps)
    with present(norm):
        ones = torch.ones(1, x.shape[-1], device=some.weight.device, dtype=torch.float32)
        factor = some(ones).float().to(x.device) * (1 + eps) ** 0.5  # of Gemma 1 + weight, of others the weight
    scale = (whole.square().mean(-1, keepdim=True) + eps).rsqrt()[:, None]
    return lambda parts: parts * scale * factor


def _is_norm(module: Any) -> bool:
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")

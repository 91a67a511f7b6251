"""Which next words the heads of a layer promote and suppress straight, on the prompts of an axis, group by group.

The share of each logit (see `fasp_core.forward.direct_logits`) is averaged over the prompts of a group, and counted
from its mean over the vocabulary, for a constant changes no probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fasp_core.errors import InputError
from fasp_core.forward.direct_logits import direct_writes, require_direct_path
from fasp_core.gap import group_codes
from fasp_core.lazy import pd, torch
from fasp_core.metrics.meters import BiasConfig, result_key, scorer_of, stored_word_values
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.loading import present
from fasp_core.model.packing import encode, pack
from fasp_core.model.passes import require_finite
from fasp_core.storage.store import Contents, Entry, Store
from fasp_core.studies.common import kept
from fasp_core.typing import Report

if TYPE_CHECKING:
    from torch import Tensor

WORDS = 12  # of each list
TOXIC = 0.2  # a token worth as much, above the scorer's floor, is marked
EVERYBODY = "all prompts"
KINDS = ("mean", "difference")  # of a group, and from the mean over all prompts


@dataclass(frozen=True, eq=False)
class Writes:
    """Lists of words of all heads of a layer.

    Attributes
    ----------
    frame : columns head, group, kind ("mean", or "difference" from all prompts), side ("promoted", "suppressed"),
        place, token, logit, toxicity (of the token as a word, above the scorer's floor, wherever it may begin one).
    """

    layer: int
    groups: tuple[str, ...]
    prompts: int
    frame: pd.DataFrame
    provenance: dict[str, Any]

    def words(self, head: int, group: str, kind: str, side: str) -> pd.DataFrame:
        """One list, the strongest first."""
        f = self.frame
        mine = (f["head"] == head) & (f["group"] == group) & (f["kind"] == kind) & (f["side"] == side)
        return f[mine].sort_values("place")


def run(lm: LanguageModel, bias: BiasConfig, layer: int, store: Store, progress: Report | None = None) -> Writes:
    """One pass over the prompts; stored.

    Raises
    ------
    InputError
        There is no such layer, or the model has no direct path from its heads to the logits.
    """
    if not 0 <= layer < lm.n_layers:
        raise InputError(f"There is no layer {layer}: this model has layers 0 to {lm.n_layers - 1}.")
    require_direct_path(lm)
    key = {
        "experiment": "writes",
        "bias": result_key(bias, lm.id),
        "layer": layer,
        "places": WORDS,
        "worth": "anywhere",
    }

    def work() -> Contents:
        prompts = bias.prompts()
        codes, names = group_codes(prompts.groups)
        means = _means(lm, prompts.texts, codes, layer, progress)
        worth = stored_word_values(lm, scorer_of(bias, lm), store, progress).values[:, 1].max(0)
        frame = _frame(lm, means, (*names, EVERYBODY), np.asarray(worth))
        return {"tables": {"words": frame}, "meta": {"layer": layer, "groups": names, "prompts": len(prompts.texts)}}

    return kept(store, lm, f"writes-{bias.axis.rsplit('/', 1)[-1]}-{layer}", key, work, read)


def read(entry: Entry) -> Writes:
    """From an entry."""
    meta = entry.meta
    return Writes(meta["layer"], tuple(meta["groups"]), meta["prompts"], entry.table("words"), meta["provenance"])


def _means(lm: LanguageModel, texts: Any, codes: np.ndarray, layer: int, progress: Report | None) -> Tensor:
    """[G + 1, H, D] mean over the prompts of each group, and over all, of what heads add to the final hidden states."""
    packs, sums, done = pack(lm, encode(lm, texts)), None, 0
    of = torch.as_tensor(codes, device=lm.device)
    groups = int(codes.max()) + 1
    for batch in packs:
        found = direct_writes(lm, batch, layer)
        if sums is None:
            sums = torch.zeros(groups, *found.shape[1:], device=found.device)
        sums.index_add_(0, of[torch.as_tensor(batch.prompts, device=lm.device)], found)
        done += len(batch.prompts)
        if progress is not None:
            progress(done, len(texts), f"{done} of {len(texts)} prompts")
    assert sums is not None
    counts = torch.bincount(of, minlength=groups)[:, None, None]
    return torch.cat([sums / counts, sums.sum(0, keepdim=True) / len(codes)])


def _frame(lm: LanguageModel, means: Tensor, names: tuple[str, ...], worth: np.ndarray) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    head = lm.model.get_output_embeddings()
    with present(head):
        unembedding = head.weight.detach()
    n_tokens = min(len(worth), len(unembedding))
    for at in range(means.shape[1]):
        logits = (means[:, at].to(unembedding.device, unembedding.dtype) @ unembedding.T).float()[:, :n_tokens]
        shares = (logits - logits.mean(1, keepdim=True)).cpu().numpy()
        require_finite(lm, shares.sum(1), "what a head writes")
        for g, name in enumerate(names):
            for kind, values in zip(KINDS, (shares[g], shares[g] - shares[-1]), strict=True):
                if name == EVERYBODY and kind == "difference":
                    continue
                order = np.argsort(-values, kind="stable")
                for side, ids in (("promoted", order[:WORDS]), ("suppressed", order[::-1][:WORDS])):
                    rows += [
                        (at, name, kind, side, place, lm.tokenizer.decode([int(i)]), values[i], worth[i])
                        for place, i in enumerate(ids)
                    ]
    columns = ["head", "group", "kind", "side", "place", "token", "logit", "toxicity"]
    return pd.DataFrame(rows, columns=columns).astype({"logit": "float64", "toxicity": "float64"})

"""Learned gains at some strengths that nobody measured: a nat costs more and the gap falls on straight lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from fasp_core.gap import PromptRows
from fasp_core.metrics.meters import BiasConfig
from fasp_core.model.identity import ModelId
from fasp_core.scoring.learned.gains import Gains
from fasp_core.storage.store import Store
from fasp_core.studies import strengths
from fasp_core.studies.strengths import Strengths

NATS, GAP = 0.1, -0.4  # at strength 1


def add_strengths(store: Store, found: Gains, bias: BiasConfig, model_id: ModelId) -> Strengths:
    """Put them where the app looks for them."""
    s, prompts = np.array([0.0, *strengths.AT]), bias.prompts()
    rows = PromptRows.of(np.zeros((1, len(prompts))), prompts.groups, prompts.blocks)
    toxicity = np.repeat(((1 + GAP * s)[:, None] * (0.01 * (1 + rows.codes % 3)))[:, None], 2, 1)
    counts = np.full(8, 64)
    arrays = {"nats": counts * (3 + NATS * s[:, None]), "counts": counts, "toxicity": toxicity, **rows.stored("")}
    meta: dict[str, Any] = {"axis": bias.axis, "at": list(strengths.AT), "groups": rows.groups, "provenance": {}}
    key = strengths.key(found, bias, model_id)
    store.save("experiments", key, arrays=arrays, meta={**meta, "readings": ["neutral", "counted"]})
    made = strengths.find(found, bias, model_id, store)
    assert made is not None
    return made

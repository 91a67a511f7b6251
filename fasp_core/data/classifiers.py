"""Classifiers of texts from the hub or a folder, as scorers of toxicity."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasp_core.errors import InputError, first_line
from fasp_core.storage.stamps import unchanged

READINGS = ("sigmoid", "softmax")
# labels that stand beside each other in the data of Jigsaw's challenges, where a text may have several of them
_BESIDE = re.compile(
    r"(very_|severe_)?toxic(ity)?|obscen(e|ity)|threat|insult|identity_(hate|attack)|sexual_explicit|profanity|dangerous"
)
_NEUTRAL = re.compile(
    r"(neutral|none|normal|safe|clean|neither|benign|ok|okay|fine|acceptable|other|nothing|harmless|no|not|non)(_.*)?"
    r"|no(n|t)(tox|hat|off|abus|insult|harm|hostil).*"
)


class ClassifierScorer:
    """One label of a sequence classifier from the hub or a local folder.

    Only safetensors weights are read and no code of the model's repository is run. Labels are independent (sigmoid) or
    compete (softmax); the name says which. The classifier's config says it (`problem_type`), one label is independent,
    and labels one of which means nothing bad compete. Where none of this holds, or several labels are those of Jigsaw's
    data, `reading` has to say it. Numbers are float32, whatever the files hold. Texts longer than the classifier's
    context are cut at the end.

    Parameters
    ----------
    source : of a hub, as `hub.HubRef` writes it (`unitary/unbiased-toxic-roberta` is Detoxify's "unbiased"), or folder.
    label : label to read, in any letter case; by default the one called toxicity or toxic.
    batch_size : texts a forward pass.
    reading : "sigmoid" or "softmax", whatever the config says; None: as the config says.
    commit : of the hub, where its name must mean the same files for long.

    Attributes
    ----------
    name : repository or folder, label, reading, and the commit or a hash of the folder's files.
    commit : of the hub; "" of a folder.
    notes : what whoever uses it has to know of where it came from.

    Raises
    ------
    InputError
        The source cannot be loaded or was changed meanwhile, has no trained classification head, or has no such label,
        or its labels may be read in two ways.
    """

    def __init__(
        self,
        source: str,
        label: str | None = None,
        batch_size: int = 32,
        reading: str | None = None,
        commit: str = "",
    ) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from fasp_core.model.memory import hold

        if reading not in (None, *READINGS):
            raise InputError(f"Labels cannot be read by '{reading}': choose sigmoid or softmax.")
        folder, where, self.commit, self.notes = _found(source, label, reading, commit)
        with unchanged(folder):
            revision = self.commit or _digest(folder)
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
                model, loading = AutoModelForSequenceClassification.from_pretrained(
                    folder, use_safetensors=True, output_loading_info=True, trust_remote_code=False, dtype=torch.float32
                )
            except Exception as error:  # a loader raises whatever its formats raise; the mend is the same
                raise InputError(
                    f"The classifier '{source}' could not be loaded ({first_line(error)}): "
                    "give the hub id or the folder of a sequence classifier with safetensors weights."
                ) from error
            hold(model)
        if loading["missing_keys"]:
            raise InputError(
                f"'{source}' lacks trained weights for a classifier ({sorted(loading['missing_keys'])[0]}): "
                "choose a model that was trained to classify text."
            )
        config = model.config
        labels = [str(config.id2label[i]) for i in range(config.num_labels)]
        if config.problem_type == "regression":
            raise InputError(f"'{source}' gives unbounded numbers, not probabilities: choose a classifier.")
        self._column = _label_column(source, labels, label)
        reading = reading or _reading(source, labels, config.problem_type)
        if reading == "softmax" and len(labels) == 1:
            raise InputError(f"'{source}' has one label, with which nothing competes: read it by sigmoid.")
        self._independent = reading == "sigmoid"
        self._model = model.eval()
        self._lock = threading.Lock()  # it may be moved to another device
        self._max_length = min(self._tokenizer.model_max_length, _positions(model))
        self._batch_size = batch_size if self._tokenizer.pad_token_id is not None else 1
        if not revision or "None" in (where, revision):
            raise ValueError(f"a scorer without an identity: {source}")
        self.name = f"{where} label {labels[self._column]} ({reading}) @{revision}"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Toxicity [n] in [0, 1]. Raises as `finite`."""
        import torch

        texts = worded(texts)
        scores = np.zeros(len(texts))
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
        for start in range(0, len(by_length), self._batch_size):
            rows = by_length[start : start + self._batch_size]
            batch = self._tokenizer(
                [texts[i] for i in rows],
                return_tensors="pt",
                padding=len(rows) > 1,
                truncation=True,
                max_length=self._max_length,
            )
            with self._lock, torch.inference_mode():
                logits = self._model(**batch.to(self._model.device)).logits.cpu().double()  # [rows, labels]
            chances = logits.sigmoid() if self._independent else logits.softmax(-1)
            scores[rows] = chances[:, self._column].numpy()
        return finite(scores, f"{self.name}, on {self._model.device}")

    def move(self, device: str) -> None:
        """Run on another device from now on."""
        with self._lock:
            self._model.to(device)


def worded(texts: Sequence[str]) -> list[str]:
    """The texts with a full stop in place of what is blank."""
    return [text if text.strip() else "." for text in texts]


def finite(scores: NDArray[np.float64], scorer: str) -> NDArray[np.float64]:
    """The scores, before anything is made of them or stored.

    Raises
    ------
    InputError
        One is infinite or not a number; `scorer` names whose it is.
    """
    if np.isfinite(scores).all():
        return scores
    raise InputError(
        f"The scorer gave scores that are not finite numbers ({scorer}): its weights may be damaged, so load it from "
        "another source, or run it on another device."
    )


def _found(source: str, label: str | None, reading: str | None, commit: str) -> tuple[Path, str, str, tuple[str, ...]]:
    """Of a classifier: its folder here, what it is called, the commit of a hub ("" of a folder), and notes."""
    from fasp_core.model import hub
    from fasp_core.model.file_heads import settings

    if (ref := hub.ref_of(source)) is None:
        folder = Path(os.path.expanduser(source))
        _check(os.listdir(folder), source)
        return folder, folder.resolve().name, "", ()

    def config(path: Path) -> None:
        said = settings(path)
        if isinstance(named := said.get("id2label"), dict):
            labels = [str(value) for value in named.values()]
            _label_column(source, labels, label)
            if reading is None:
                _reading(source, labels, said.get("problem_type"))

    found = hub.resolve(ref.at(commit) if commit else ref)
    named = f"{found.origin.repo}/{found.origin.subfolder}".strip("/")
    notes = (found.note,) if found.note else ()
    return hub.fetch(found, _check, config), named, found.origin.revision, notes


def _check(names: Collection[str], name: str) -> None:
    """As for models, and classifiers have tokenizers of more kinds."""
    from fasp_core.model.model_files import check_names

    words = any(n == "vocab.txt" or n.endswith(".model") for n in names)
    check_names({*names, "tokenizer.json"} if words else names, name)


def _reading(source: str, labels: list[str], problem: str | None) -> str:
    """How the labels are read, by what the config says and by their names."""
    if problem is not None or len(labels) == 1:
        return "sigmoid" if problem == "multi_label_classification" or len(labels) == 1 else "softmax"
    named = [re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_") for label in labels]
    beside = sum(bool(_BESIDE.fullmatch(name)) for name in named)
    if beside > 1 or (len(labels) > 2 and not any(_NEUTRAL.fullmatch(name) for name in named)):
        raise InputError(
            f"The config of '{source}' does not say whether its {len(labels)} labels ({', '.join(labels[:8])}) exclude "
            "each other: choose the scorer reading sigmoid (--scorer-reading sigmoid) if a text may have several of "
            "them, as in Jigsaw's data, or softmax if it has one."
        )
    return "softmax"


def _label_column(source: str, labels: list[str], label: str | None) -> int:
    """Column of the wanted label: as named, else "toxicity" or "toxic", else the only one like them."""
    lowered = [name.lower() for name in labels]
    for wanted in [label.lower()] if label is not None else ["toxicity", "toxic"]:
        if wanted in lowered:
            return lowered.index(wanted)
    alike = [i for i, name in enumerate(lowered) if name.startswith("toxic")] if label is None else []
    if len(alike) == 1:
        return alike[0]
    wish = f"called '{label}'" if label is not None else "for toxicity"
    raise InputError(f"'{source}' has no label {wish}: choose one of {', '.join(labels)}.")


def _positions(model: Any) -> int:
    """Tokens that the model has room for; RoBERTa's kin keep their first positions for padding."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            return int(module.num_embeddings) - (0 if module.padding_idx is None else module.padding_idx + 1)
    return int(getattr(model.config, "max_position_embeddings", 512))


def _digest(folder: Path) -> str:
    """A hash of a folder's files that shape scores."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".json", ".txt", ".model"}:
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]

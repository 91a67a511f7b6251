"""A pruned model as a folder: written whole, loaded back and compared before it is there, or not written at all."""

from __future__ import annotations

import copy
import glob
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fasp_core.errors import InputError
from fasp_core.export import card, checking, constants, older
from fasp_core.export.checking import Check, Size, Speed
from fasp_core.export.layouts import config_of
from fasp_core.export.planning import Plan, plan
from fasp_core.export.tensors import smaller_state
from fasp_core.heads.prune_set import PruneSet
from fasp_core.metrics.meters import Report
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.provenance import provenance
from fasp_core.storage.store import STALE_SECONDS

RESULT = "export.json"
PRUNE_SET = "prune_set.txt"
MAX_RESULT_BYTES = 64_000_000
STEPS = 100  # of the progress


@dataclass(frozen=True, eq=False)
class Exported:
    """A checkpoint that was written, and what was seen of it.

    Attributes
    ----------
    plan : what is gone, what is zeroed, and why.
    before, after : of the whole model and of the loaded export.
    check : its logits against the masked model's.
    versions : of transformers: "loaded", which has read it; "fields", an older one, and how that "differs" by the
        fields of the config that it reads, "" if it does not.
    files : sizes in bytes by name.
    command : the command line that repeats it.
    """

    folder: Path
    model: str
    weights: str
    plan: Plan
    before: Size
    after: Size
    speed: Speed
    check: Check
    versions: dict[str, str]
    licence: str | None
    files: dict[str, int]
    command: str
    provenance: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; parts as `PruneSet.format` writes them."""
        p = self.plan
        return {
            "folder": str(self.folder),
            "model": self.model,
            "weights": self.weights,
            "prune_set": p.removed.format(),
            "heads": len(p.removed.heads),
            "neurons": len(p.removed.neurons),
            "gone": {"heads": len(p.gone.heads), "neurons": len(p.gone.neurons), "parts": p.gone.format()},
            "zeroed": {"heads": len(p.zeroed.heads), "neurons": len(p.zeroed.neurons), "parts": p.zeroed.format()},
            "scaled": {"heads": len(p.scaled.gains), "parts": p.scaled.format()},
            "reasons": list(p.reasons),
            "layers": len(p.heads),
            "shape": {"before": asdict(p.before), "after": asdict(p.after)},
            "size": {"before": asdict(self.before), "after": asdict(self.after)},
            "tokens_per_second": asdict(self.speed),
            "check": {**asdict(self.check), "limit": checking.LIMIT, "versions": self.versions},
            "licence": self.licence,
            "files": self.files,
            "command": self.command,
            "provenance": self.provenance,
        }


def export(lm: LanguageModel, prune_set: PruneSet, folder: Path, progress: Report | None = None) -> Exported:
    """Write the model without the parts of `prune_set`, in the precision in which it is loaded.

    Parameters
    ----------
    folder : absent or empty; its parents are made.

    Raises
    ------
    InputError
        A part is not in the model, the folder is in use or cannot be written, the model lies partly in main memory, or
        the export, loaded back, does not give the masked model's logits. Nothing is left behind then, nor if `progress`
        raises.
    """
    started = time.perf_counter()
    report = progress or (lambda done, total, text: None)
    planned = plan(lm, prune_set)
    constants.check(lm, prune_set)
    if any(p.is_meta for p in lm.model.parameters()):
        raise InputError(
            "A model that lies partly in main memory cannot be exported: load it with --device cpu, or on GPUs that "
            "hold all of it."
        )
    folder = Path(os.path.realpath(os.path.expanduser(folder)))  # unlike Path's, it never raises
    with whole_folder(folder, checking.weight_bytes(lm.model)) as work:
        _write(lm, planned, work, _part(report, 0, 20))
        report(20, STEPS, "loading it back")
        model, tokenizer = checking.load_back(work, lm)
        checked = checking.check(lm, prune_set, model, tokenizer, _part(report, 30, 60))
        report(60, STEPS, "counting")
        before, after = checking.size(lm.model), checking.size(model)
        timed = checking.speed(lm, model, _part(report, 65, 95))
        command = card.command(lm, prune_set, folder, PRUNE_SET)
        licence = card.licence(lm)
        result = Exported(
            folder,
            lm.name,
            lm.weights_id,
            planned,
            before,
            after,
            timed,
            checked,
            older.versions(work),
            licence,
            {f.name: f.stat().st_size for f in sorted(work.iterdir())},
            command,
            provenance(lm, time.perf_counter() - started, command),
        )
        (work / PRUNE_SET).write_text(prune_set.format() + "\n", encoding="utf-8")
        document = {**result.as_dict(), "folder": folder.name}  # where it lay first says nothing once it is moved
        (work / RESULT).write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        (work / "README.md").write_text(card.text(document), encoding="utf-8")
        mode = (work / RESULT).stat().st_mode
        for file in work.iterdir():  # weights are written for their owner alone, unlike all else
            file.chmod(mode)
        report(STEPS, STEPS, "done")
    return result


def read_result(folder: Path) -> dict[str, Any] | None:
    """What `export` said of a folder that it wrote; None if it is no such folder."""
    with suppress(OSError, ValueError, RecursionError):
        path = folder / RESULT
        if path.stat().st_size <= MAX_RESULT_BYTES and isinstance(found := json.loads(path.read_bytes()), dict):
            return {**found, "folder": str(folder)}
    return None


def check_free(folder: Path) -> None:
    """Raises InputError where `folder` is a file or not empty."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"'{folder}' is there already and not an empty folder: name another one.")
    except OSError as error:
        raise InputError(f"'{folder}' cannot be read ({error.strerror}): name another folder.") from error


@contextmanager
def whole_folder(folder: Path, needed: int = 0) -> Iterator[Path]:
    """A folder to write in, which becomes `folder` if the block ends well and vanishes otherwise.

    Raises as `check_free`, and InputError where it cannot be written.

    Parameters
    ----------
    needed : bytes that may be written; refused at once where there is no room for them.
    """
    work = folder.parent / f".{folder.name[:80]}.{uuid.uuid4().hex}.tmp"
    made = [path for path in (folder.parent, *folder.parent.parents) if not path.exists()]
    whole = False
    try:
        check_free(folder)
        work.mkdir(parents=True)
        _sweep(folder)
        if (free := shutil.disk_usage(work).free) < needed:
            raise OSError(None, f"{needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB free")
        yield work
        if folder.exists():
            folder.rmdir()  # an empty one, which not every system replaces
        os.rename(work, folder)
        whole = True
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"'{folder}' cannot be written ({reason}): make room there, or name another folder."
        ) from error
    finally:
        if not whole:
            shutil.rmtree(work, ignore_errors=True)
            for path in made:  # the innermost first
                with suppress(OSError):
                    path.rmdir()


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed has left of the same folder, a day ago or longer."""
    for path in folder.parent.glob(f".{glob.escape(folder.name[:80])}.{'[0-9a-f]' * 32}.tmp"):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _write(lm: LanguageModel, planned: Plan, work: Path, progress: Report) -> None:
    """Weights, configs and tokenizer."""
    config = config_of(lm.model.config, planned.after, lm.head_dim)
    assert config is not None  # the plan has asked
    if biased := constants.switch(lm, planned.removed):
        setattr(config, biased, True)
    state = smaller_state(lm, planned, progress)
    progress(lm.n_layers, lm.n_layers, "writing")
    shell = copy.copy(lm.model)  # shares the modules; saving writes into the config, which is not the shared one then
    shell.config = config
    shell.can_generate = lambda: False  # some sources' generation settings load but cannot be saved in the plain way
    shell.save_pretrained(work, state_dict=state, max_shard_size="5GB")
    if lm.model.can_generate():
        lm.model.generation_config.to_json_file(work / "generation_config.json")
    lm.tokenizer.save_pretrained(work)
    older.write_older(work)


def _part(report: Report, first: float, last: float) -> Report:
    """Progress of one stage as a part of the whole."""
    return lambda done, total, text: report(first + (last - first) * done / max(total, 1e-9), STEPS, text)

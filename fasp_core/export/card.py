"""The model card of an export, and the command that repeats it."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from fasp_core.console import one_line
from fasp_core.heads.prune_set import PruneSet
from fasp_core.model.hub import named_by, pinned
from fasp_core.model.language_model import LanguageModel
from fasp_core.model.spec import ABLATIONS, BUILT_IN

BUILT_IN_ID, BUILT_IN_LICENCE = "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"
MAX_COMMAND = 2000  # characters of a list of parts on a command line; longer ones are read from the file
MAX_LISTED = 600
MB = 1e6
_USUAL = re.compile(r"[\w./-]+")  # names of models that are no Markdown
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")


def command(lm: LanguageModel, removed: PruneSet, folder: Path, file: str) -> str:
    """The command line that writes the same folder again."""
    parts = removed.format()
    which = ["--heads", parts] if len(parts) <= MAX_COMMAND else ["--prune-set", file]
    model = ["--model", pinned(lm.name, lm.weights_id), "--dtype", lm.spec.dtype]
    taken_out = [] if lm.spec.ablation == ABLATIONS[0] else ["--ablation", lm.spec.ablation]
    return shlex.join(["python", "-m", "fasp_core", "export", *model, *taken_out, *which, "--out", folder.name])


def licence(lm: LanguageModel) -> str | None:
    """The licence that the source's own model card names; None where it is not known. Nothing is guessed."""
    if lm.name == BUILT_IN:
        return BUILT_IN_LICENCE
    from huggingface_hub import ModelCard, hf_hub_download  # imported late: the first page does without

    with suppress(Exception):  # no card, no network, or a card that cannot be read: not known
        if (ref := named_by(lm.weights_id)) is not None:
            path = Path(hf_hub_download(ref.repo, "README.md", revision=ref.revision, etag_timeout=5))
        else:
            source = Path(os.path.expanduser(lm.name))
            path = (source if source.is_dir() else source.parent) / "README.md"
        named = ModelCard(path.read_text(encoding="utf-8")).data.to_dict().get("license")
        if isinstance(named, str) and _LICENCE.fullmatch(named):
            return named
    return None


def text(d: dict[str, Any]) -> str:
    """README.md, from the document that `Exported.as_dict` gives."""
    from huggingface_hub import ModelCardData  # as in `licence`

    ref, removed, scaled = named_by(d["weights"]), d["heads"] + d["neurons"], d["scaled"]["heads"]
    base = BUILT_IN_ID if d["model"] == BUILT_IN else ref.repo if ref is not None else None
    data = ModelCardData(
        base_model=base,
        license=d["licence"],
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[*(["pruned", "attention-head-pruning"] if removed else []), "fairness"],
    )
    speed, check = d["tokens_per_second"], d["check"]
    name = base or Path(d["model"]).name
    weights = sum(size for file, size in d["files"].items() if file.endswith(".safetensors"))
    made = d["provenance"]
    folder = _plain(repr(d["folder"]))
    licensed = (
        f"{_code(d['licence'])}."
        if d["licence"]
        else "which the program could not find out. Look it up before you pass this on."
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name if _USUAL.fullmatch(name) else _code(name)}, {'pruned' if removed or not scaled else 'heads scaled'}",
        f"{_code(name)} {changed(d)}. Written by FASP Studio. It loads with plain transformers, without code of its "
        "own:",
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({folder})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({folder})\n```",
        "## What was changed",
        _bullets(
            f"Source: {_code(name)}, weights {_code(d['weights'])}, loaded in {speed['dtype']}.",
            f"The set: {_listed(d['prune_set'])} (`L0H3` is layer 0, head 3, removed; `L0H3*0.4` is scaled; `L5N17` is "
            "a hidden unit of an MLP). The whole list is in `prune_set.txt`.",
            f"Physically gone: {_counted(d['gone'])}.",
            f"Only zeroed: {_counted(d['zeroed'])}.",
            *(f"Why zeroed: {reason}" for reason in d["reasons"]),
            *([f"Scaled: {told(scaled, 0)}, by multiplying columns of output projections."] if scaled else []),
            (
                "The mean outputs of these heads over a calibration text are part of the biases of output projections"
                if made.get("ablation")
                else "Output projections keep their biases"
            )
            + f"; no other weight was changed{'' if scaled else ', and nothing was trained'}.",
        ),
        "## Sizes",
        "\n".join(["| | before | after |", "|---|---:|---:|", *(f"| {' | '.join(row)} |" for row in sizes(d))]),
        f"The safetensors files hold {weights / MB:,.1f} MB. {timed(speed)}",
        "## Check",
        compared(check),
        "## How to repeat it",
        f"```sh\n{_plain(d['command'])}\n```",
        f"{_plain(made['program'])}, Python {made['python']}, "
        + ", ".join(f"{_plain(package)} {_plain(version)}" for package, version in made["packages"].items())
        + f"; {_plain(made['machine'])}; {made['created']}.",
        "## Limits",
        _bullets(
            "Which parts are removed or scaled was decided by whoever made this. This card shows that the export "
            "equals the masked model; it does not show that the model is fairer, nor what the change costs. Measure "
            "both on prompts on which nothing was chosen.",
            "A smaller gap in one measure, on template sentences in English, is not a fair model. Other groups, "
            "contexts and languages may be better or worse off than before.",
            "Zeroed parts still take memory and time.",
            "Everything that is said about the source's uses, data and risks holds for this model as well.",
            f"Licence: that of the source, {licensed}",
        ),
    ]
    return "\n\n".join(parts) + "\n"


def sizes(d: dict[str, Any]) -> list[list[str]]:
    """(what, before, after) of a document that `Exported.as_dict` gives."""
    before, after, speed = d["size"]["before"], d["size"]["after"], d["tokens_per_second"]
    old, new = d["shape"]["before"], d["shape"]["after"]
    return [
        [f"heads of each of {d['layers']} layers", str(old["heads"]), str(new["heads"])],
        ["key and value heads of each", str(old["kv_heads"]), str(new["kv_heads"])],
        ["neurons of each MLP", f"{old['neurons']:,}", f"{new['neurons']:,}"],
        ["parameters", f"{before['parameters']:,}", f"{after['parameters']:,}"],
        ["parameters that are not zero", f"{before['nonzero']:,}", f"{after['nonzero']:,}"],
        [f"weights, MB in {speed['dtype']}", f"{before['bytes'] / MB:,.1f}", f"{after['bytes'] / MB:,.1f}"],
        ["tokens read a second", f"{speed['before']:,.0f}", f"{speed['after']:,.0f}"],
    ]


def _bullets(*lines: str) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _counted(parts: dict[str, Any]) -> str:
    listed = f" ({_listed(parts['parts'])})" if parts["parts"] else ""
    return told(parts["heads"], parts["neurons"]) + listed


def compared(check: dict[str, Any]) -> str:
    """How far the logits lie from the masked model's."""
    found = (
        f"Loaded back with plain transformers, its logits differ from those of the whole model with the same parts "
        f"masked by at most {_small(check['difference'])} in {check['dtype']} ({check['logits']:,} logits on "
        f"{check['prompts']} prompts; {check['limit']:g} is the limit)."
    )
    if check["dtype"] != "float32":
        found += f" In float32 it is {_small(check['float32'])}: rounding, since terms are added in another order."
    if not (versions := check.get("versions")):
        return found
    found += f" Checked by loading it with transformers {versions['loaded']}"
    if versions["differs"]:
        return f"{found}; {versions['differs']}, so use version 5 or later."
    return f"{found}; the fields of its config that transformers {versions['fields']} reads say the same."


def timed(speed: dict[str, Any]) -> str:
    """How the tokens a second were measured, and whether they differ."""
    low, high = speed["low"], speed["high"]
    shown = ", so no difference is shown" if low <= 1 <= high else ""
    threads = f"{speed['threads']} thread{'' if speed['threads'] == 1 else 's'}"
    return (
        f"Tokens a second: medians of {speed['repeats']} passes of each model by turns, {speed['batch']} rows of "
        f"{speed['length']} tokens, in {speed['dtype']} on {_plain(speed['device'])} with {threads}. After over before "
        f"lay between {low:.2f} and {high:.2f}{shown}."
    )


def megabytes(size: float) -> str:
    """`538 MB`, `0.1 MB`."""
    return f"{size / MB:,.0f} MB" if size >= 100 * MB else f"{size / MB:,.1f} MB"


def _small(difference: float) -> str:
    return f"{difference:.1e}" if difference else "0"


def changed(d: dict[str, Any]) -> str:
    """`without 3 heads and 1 neuron`, `without 3 heads, with 2 heads scaled`, `with 2 heads scaled`, `as it is`."""
    said = [f"without {told(d['heads'], d['neurons'])}"] if d["heads"] + d["neurons"] else []
    if scaled := d["scaled"]["heads"]:
        said.append(f"with {told(scaled, 0)} scaled")
    return ", ".join(said) or "as it is"


def told(heads: int, neurons: int) -> str:
    """`3 heads and 1 neuron`, `nothing`."""
    parts = [f"{n:,} {kind}{'' if n == 1 else 's'}" for n, kind in ((heads, "head"), (neurons, "neuron")) if n]
    return " and ".join(parts) or "nothing"


def _listed(parts: str) -> str:
    if not parts:
        return "nothing"
    if len(parts) <= MAX_LISTED:
        return f"`{parts}`"
    return f"`{parts[: parts.rindex(',', 0, MAX_LISTED)]}` and more"


def _plain(value: object) -> str:
    """One line; names of models and folders may hold anything."""
    return one_line(value).replace("```", "'''")


def _code(value: object) -> str:
    return f"`{_plain(value).replace('`', chr(39))}`"

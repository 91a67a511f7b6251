"""Reading of released files: from a path or from bytes to arrays, each mistake named with its place."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fasp_core.errors import InputError
from fasp_core.heads.prune_set import MAX_HEADS
from fasp_core.heads.selection import HeadScores
from fasp_core.storage import tabular
from fasp_core.typing import Floats

Tables = dict[str, dict[str, Floats]]  # model -> score -> [N]
RowKey = tuple[str, str, str]  # model, axis, split
Cells = dict[tuple[str, int], list[tuple[float, float]]]  # (seed, head) -> bias and perplexity of each row

LONGEST_NUMBER = 1_000  # digits
LONGEST_NAME = 200  # of a model, an axis, a score
MAX_BYTES = 100_000_000  # the released files are below 1 MB
MAX_MODELS = 1_000
MAX_CELLS = 20_000_000  # of all arrays: a short row of a seed of its own makes one of all heads

# (layers, heads in a layer), which no file says; keyed by the model's name on the hub
SHAPES = {
    "EleutherAI/gpt-j-6B": (28, 16),
    "EleutherAI/gpt-neo-1.3B": (24, 16),
    "EleutherAI/gpt-neo-125M": (12, 12),
    "EleutherAI/gpt-neo-2.7B": (32, 20),
    "EleutherAI/pythia-160m": (12, 12),
    "EleutherAI/pythia-70m": (6, 8),
    "bert-base-cased": (12, 12),
    "distilbert-base-cased": (6, 12),
    "distilgpt2": (6, 12),
    "distilroberta-base": (6, 12),
    "facebook/opt-350m": (24, 16),
    "gpt2": (12, 12),
    "meta-llama/Llama-2-7b-chat-hf": (32, 32),
    "roberta-base": (12, 12),
}
_HUB_NAMES = {name.replace("/", "_"): name for name in SHAPES}  # some CSV files have no slash
_COLUMNS = ("Model", "Group", "Head id", "Split", "Bias", "PPL")


@dataclass(frozen=True, eq=False)
class SeedRows:
    """The rows of one model, axis and split, from a file of rows.

    Attributes
    ----------
    seeds : their names, S of them, in ascending order.
    bias, ppl : [S, N] after a head is removed; NaN where the file has no number.
    doubled : rows beyond the first of the same seed and head; their mean is in the arrays.
    """

    seeds: tuple[str, ...]
    bias: Floats
    ppl: Floats
    doubled: int = 0

    @property
    def mean(self) -> Floats:
        """[N] mean bias over the seeds that a head has, NaN without any."""
        held = np.isfinite(self.bias)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(held, self.bias, 0.0).sum(0) / held.sum(0))


@dataclass(frozen=True, eq=False)
class Published:
    """What one released file holds.

    Attributes
    ----------
    path : the file, for messages.
    tables : model -> name of the score, as in `head_contributions.json` -> array of shape [N], NaN where the
        file has no number.
    rows : (model, axis, split) -> the rows behind the means; empty for a JSON file, which has means alone.
    """

    path: Path
    tables: Mapping[str, Mapping[str, Floats]]
    rows: Mapping[RowKey, SeedRows] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in the order of the file."""
        return tuple(self.tables)

    def axes(self, model: str) -> tuple[str, ...]:
        """The axes of a model, such as `gender_and_sex`; none where only baseline scores were released.

        Raises
        ------
        InputError
            The file holds no such model.
        """
        names = [name for name in self._table(model) if name.startswith("cont_to_") and name.endswith("_bias")]
        return tuple(name.removeprefix("cont_to_").removesuffix("_bias") for name in names)

    def size(self, model: str) -> int:
        """How many heads the file has of a model; of one that is not in `SHAPES`, the last in a file of rows counts.

        Raises
        ------
        InputError
            The file holds no such model.
        """
        return next(iter(self._table(model).values())).size

    def head_scores(self, model: str, axis: str | None = None, n_heads: int | None = None) -> HeadScores:
        """Scores of a model in this project's signs, NaN where the file has none for a head.

        `z_ppl` is `cont_to_ppl` and `z_bias` is `-cont_to_<axis>_bias`, each a difference up to a constant;
        `magnitude` is `magnitude_l2_structured`, `gradient` is `mask_gradient_l2_structured`.

        Parameters
        ----------
        axis : one of `axes(model)`; None leaves z_bias out.
        n_heads : heads in a layer, needed only for a model that is not in `SHAPES`.

        Raises
        ------
        InputError
            No such model or axis, or a number of heads that is unknown or does not fit the file.
        """
        table, size = self._table(model), self.size(model)
        if axis is not None and axis not in self.axes(model):
            held = ", ".join(self.axes(model)) or "none, only baseline scores"
            raise InputError(f"'{self.path}' has no axis '{axis}' for {model}: it has {held}.")
        if n_heads is not None:
            n_layers = size // max(n_heads, 1)
        elif model in SHAPES:
            n_layers, n_heads = SHAPES[model]
        else:
            raise InputError(f"The shape of '{model}' is not known: give its number of heads in a layer.")
        if n_layers * n_heads != size:
            raise InputError(
                f"'{self.path}' has {size} heads for {model}, not {n_layers} layers of {n_heads}: "
                "give a file of the whole model, or its number of heads in a layer."
            )
        bias = table.get(f"cont_to_{axis}_bias")
        return HeadScores(
            n_layers=n_layers,
            n_heads=n_heads,
            z_ppl=table.get("cont_to_ppl"),
            z_bias=None if bias is None else -bias,
            magnitude=table.get("magnitude_l2_structured"),
            gradient=table.get("mask_gradient_l2_structured"),
        )

    def seed_rows(self, model: str, axis: str, split: str = "valid") -> SeedRows | None:
        """The rows of one axis and split; None where the file has none, as every JSON file."""
        return self.rows.get((model, axis, split))

    def _table(self, model: str) -> Mapping[str, Floats]:
        if model not in self.tables:
            raise InputError(f"'{self.path}' has no model '{model}': it has {', '.join(self.models)}.")
        return self.tables[model]


def read(path: str | Path) -> Published:
    """Open a released score file; a name that ends as a table's is read as rows, any other as JSON.

    Raises
    ------
    InputError
        No such file, one above 100 MB, or one of another structure; the message names the place.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise InputError(f"There is no file '{path}': give a score file that the FASP authors released.")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"'{path}' is larger than {MAX_BYTES // 1_000_000} MB: give a released score file.")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}): check its name and its permissions.") from error
    return read_bytes(content, path)


def read_bytes(content: bytes, name: str | Path) -> Published:
    """Open a released score file that is in memory, such as an upload; `name` as in `read`, for messages too.

    Raises
    ------
    InputError
        As `read`.
    """
    path = Path(name)  # of an upload, nothing is opened
    if len(content) > MAX_BYTES:
        raise InputError(f"'{path}' is larger than {MAX_BYTES // 1_000_000} MB: give a released score file.")
    text = tabular.decode(content, f"The file '{path}'")
    ending = path.suffix.lower()
    if ending == ".csv" or (ending in tabular.ENDINGS and not text.lstrip().startswith("{")):
        return Published(path, *_read_csv(path, text))
    return Published(path, _read_json(path, text))


def _read_json(path: Path, text: str) -> Tables:
    try:
        content = json.loads(text, parse_int=_whole)  # accepts NaN and Infinity, as Python writes them
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not JSON ({error}): give the released file as it is.") from error
    tables: Tables = {}
    for model, scores in _members(path, "the file", content, "models"):
        tables[model] = {}
        for name, values in _members(path, f"'{model}'", scores, "scores"):
            place = f"'{path}', '{model}', '{name}'"
            if not isinstance(values, list) or not values:
                raise InputError(f"{place}: expected a list of numbers, one for each head.")
            tables[model][name] = np.array([_json_number(place, i, value) for i, value in enumerate(values)])
        sizes = {name: values.size for name, values in tables[model].items()}
        if len(set(sizes.values())) > 1:
            short, long = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
            raise InputError(
                f"'{path}', '{model}': '{short}' has {sizes[short]} numbers and '{long}' {sizes[long]}; "
                "give each score one number for each head."
            )
    return tables


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:  # reading one takes longer than its length
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _members(path: Path, place: str, value: Any, kind: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        raise InputError(f"'{path}': expected {place} to hold {kind}, as in {{model: {{score: [numbers]}}}}.")
    if strange := [name for name in value if not _shown(name)]:
        raise InputError(
            f"'{path}': expected {place} to hold names of at most {LONGEST_NAME} letters, not {strange[0]!r:.40}."
        )
    return list(value.items())


def _shown(name: str) -> bool:
    """Whether a name can stand on a page: JSON can hold half characters, and any length."""
    return name.isprintable() and len(name) <= LONGEST_NAME


def _json_number(place: str, index: int, value: Any) -> float:
    if value is None:
        return float("nan")
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    except OverflowError:  # an integer of hundreds of digits
        pass
    raise InputError(f"{place}, item {index}: expected a number, not {value!r:.40}.")


def _read_csv(path: Path, text: str) -> tuple[Tables, dict[RowKey, SeedRows]]:
    """Bias is the mean over seeds of the validation rows, and so is the JSON's.

    Perplexity does not depend on axis or seed, so it is the median of all validation rows of a head. A mean
    would not do: in the released gpt2 file the rows of gender_and_sex come from another perplexity run than
    those of the four other axes, which alone shaped the JSON (head 1: 116.8 against 261.7).
    """
    cells: dict[RowKey, Cells] = defaultdict(lambda: defaultdict(list))
    try:
        table = tabular.table(text, _COLUMNS, ("Seed",))
        listed = [row for row in table.rows() if row.cells[table.column["Head id"]].strip()]  # else no head was removed
        mark = tabular.decimal_mark(row.cells[table.column[name]] for row in listed for name in ("Bias", "PPL"))
    except InputError as error:
        raise InputError(f"In '{path}': {error}") from error.__cause__
    for row in listed:
        place = f"'{path}', line {row.line}"
        at = {name: row.cells[where].strip() for name, where in table.column.items()}
        if strange := [name for name in ("Model", "Group", "Split") if not _shown(at[name])]:
            raise InputError(f"{place}: column '{strange[0]}' holds no name of at most {LONGEST_NAME} letters.")
        model = _HUB_NAMES.get(at["Model"], at["Model"])
        head = _csv_head(place, model, at["Head id"])
        pair = _csv_number(place, "Bias", at["Bias"], mark), _csv_number(place, "PPL", at["PPL"], mark)
        cells[model, at["Group"], at["Split"]][at.get("Seed", "").removesuffix(".0"), head].append(pair)
    valid = {(model, axis): of for (model, axis, split), of in cells.items() if split == "valid"}
    if not valid:
        raise InputError(f"'{path}' has no row of a head with Split 'valid': give a released score file.")

    last: dict[str, int] = defaultdict(int)
    for (model, _, _), of in cells.items():
        last[model] = max(last[model], 1 + max(head for _, head in of))
    sizes = {model: math.prod(SHAPES[model]) if model in SHAPES else last[model] for model, _ in valid}
    wanted = sum(
        sizes[model] * (2 + len({seed for seed, _ in of})) for (model, _, _), of in cells.items() if model in sizes
    )
    if wanted > MAX_CELLS or len(sizes) > MAX_MODELS:
        raise InputError(f"'{path}' names more models, axes and seeds than any file of scores: give a released one.")
    tables: Tables = {}
    for model, size in sizes.items():
        ppl = [item for (name, _), of in valid.items() if name == model for item in of.items()]
        tables[model] = {"cont_to_ppl": _per_head(ppl, 1, np.median, size)}
    for (model, axis), of in valid.items():
        tables[model][f"cont_to_{axis}_bias"] = _per_head(of.items(), 0, np.mean, sizes[model])
    rows = {key: _seed_rows(of, sizes[key[0]]) for key, of in cells.items() if key[0] in sizes}
    return tables, rows


def _seed_rows(cells: Cells, n: int) -> SeedRows:
    seeds = sorted({seed for seed, _ in cells}, key=lambda name: (len(name), name))  # 2 comes before 10
    own: dict[str, Cells] = defaultdict(dict)
    for (seed, head), pairs in cells.items():
        own[seed][seed, head] = pairs
    bias, ppl = (np.stack([_per_head(own[s].items(), which, np.mean, n) for s in seeds]) for which in (0, 1))
    return SeedRows(tuple(seeds), bias, ppl, sum(len(pairs) - 1 for pairs in cells.values()))


def _per_head(
    cells: Iterable[tuple[tuple[str, int], list[tuple[float, float]]]],
    which: int,
    average: Callable[[list[float]], Any],
    n: int,
) -> Floats:
    """Average of each head's numbers, shape [n]; those missing are left out, as if the row were not there."""
    values: dict[int, list[float]] = defaultdict(list)
    for (_, head), pairs in cells:
        values[head] += [pair[which] for pair in pairs if pair[which] == pair[which]]  # a NaN is not equal to itself
    result = np.full(n, np.nan)
    for head, held in values.items():
        if held:
            result[head] = average(held)
    return result


def _csv_head(place: str, model: str, text: str) -> int:
    """Flat id from 0 of a `Head id` that counts from 1 and may be written 1.0."""
    n_layers, n_heads = SHAPES.get(model, (1, MAX_HEADS))
    last = n_layers * n_heads
    head = _csv_number(place, "Head id", text, "," if re.fullmatch(r"\d+,0*", text) else ".")
    if not 1 <= head <= last or head != int(head):
        raise InputError(f"{place}: expected a whole number from 1 to {last} in column 'Head id', not '{text:.40}'.")
    return int(head) - 1


def _csv_number(place: str, column: str, text: str, mark: str) -> float:
    try:
        return tabular.number(text, mark)
    except ValueError:
        raise InputError(f"{place}: expected a number in column '{column}', not '{text:.40}'.") from None

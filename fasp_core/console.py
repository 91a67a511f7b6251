"""What the command line says, and where: one result on stdout, everything else on stderr.

Scripts read stdout, so nothing but the result may reach it: while work goes on, what any library prints is sent to
stderr, where the progress bars are too.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from fasp_core.typing import Report


def to_json(document: Any) -> str:
    """The document as JSON that every parser reads: NaN and infinities are null."""
    text = json.dumps(_plain(document), indent=2, allow_nan=False)
    return re.sub(r"\[\n\s+(\S+),\n\s+(\S+)\n\s+\]", r"[\1, \2]", text)  # pairs on one line; no text holds a raw \n


def log(message: object) -> None:
    """One line on stderr."""
    print(one_line(message), file=sys.stderr)


def one_line(text: object) -> str:
    """Texts from files and models may hold line ends and terminal codes: neither reaches the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length in aligned columns; the first row is the head, the first column is left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def number(value: float | None) -> str:
    """Three significant digits."""
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.3g}"


def percent(value: float | None) -> str:
    """A relative change with its sign."""
    return "n/a" if value is None or not math.isfinite(value) else f"{100 * value + 0.0:+.1f}%"


def share(value: float) -> str:
    """A share or a limit in percent, with the digits that it has: 10%, 2.5%."""
    return f"{100 * value:g}%"


def span(interval: Sequence[float] | None, form: Callable[[float | None], str] = number) -> str:
    """An interval in brackets."""
    return "n/a" if interval is None else f"[{form(interval[0])}, {form(interval[1])}]"


@contextmanager
def prints_aside() -> Iterator[None]:
    """What is printed inside goes to stderr: by Python, and by native code on the process' own stdout."""
    kept = None
    with redirect_stdout(sys.stderr):
        try:
            kept = os.dup(1)
            os.dup2(2, 1)
        except OSError:  # a program without a terminal may have closed either
            pass
        try:
            yield
        finally:
            if kept is not None:
                os.dup2(kept, 1)
                os.close(kept)


@contextmanager
def working() -> Iterator[Report]:
    """A block of work with a progress bar; prints inside it go to stderr."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read when transformers is imported, in the block
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # what matters of its warnings is told in a sentence
    if "transformers" in sys.modules:  # who calls main() may have imported it
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
    from tqdm import tqdm

    bar: tqdm[Any] | None = None

    def report(done: float, total: float, text: str) -> None:
        nonlocal bar
        if bar is not None and (total != bar.total or done < bar.n):  # the next stage
            bar.close()
            bar = None
        if bar is None:  # in a log file a line each 10 seconds is enough, and none for what ends before
            pause = 0.1 if sys.stderr.isatty() else 10.0
            bar = tqdm(
                total=total,
                initial=done,  # what an earlier run finished must not flatter the time left
                file=sys.stderr,
                delay=pause,
                mininterval=pause,
                leave=False,
                bar_format="{desc}  {percentage:3.0f}% |{bar:24}| {elapsed}, {remaining} left",
            )
        bar.set_description_str(text, refresh=False)
        bar.update(done - bar.n)

    with prints_aside():
        try:
            yield report
        finally:
            if bar is not None:
                bar.close()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):  # NumPy's doubles are floats as well
        return None
    return value

"""The one exception that callers are meant to show to a person."""

from __future__ import annotations

LONGEST = 1500  # characters


class InputError(ValueError):
    """Input that cannot be used. The message is one sentence that says how to fix it.

    The command line prints it and exits with status 2; the app shows it in a box. Anything else that is
    raised is a defect of this program and keeps its traceback.

    Messages quote what others wrote, which may hold line breaks, half characters that no screen shows, or millions of
    letters: of any message there is one line, of at most `LONGEST` characters.
    """

    def __init__(self, message: str) -> None:
        line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
        if len(line) > LONGEST:  # the mend stands at the end
            line = f"{line[: LONGEST // 2]} … {line[3 - LONGEST // 2 :]}"
        super().__init__(line)

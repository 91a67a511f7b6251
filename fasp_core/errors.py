"""The one exception that callers are meant to show to a person."""

from __future__ import annotations

from fasp_core.console import one_line

LONGEST = 1500  # characters


class InputError(ValueError):
    """Input that cannot be used. The message is one sentence that says how to fix it.

    The command line prints it and exits with status 2; the app shows it in a box. Anything else that is
    raised is a defect of this program and keeps its traceback.

    Messages quote what others wrote, which may hold line breaks, half characters that no screen shows, or millions of
    letters: of any message there is one line, of at most `LONGEST` characters.
    """

    def __init__(self, message: str) -> None:
        line = one_line(message)
        if len(line) > LONGEST:  # the mend stands at the end
            line = f"{line[: LONGEST // 2]} … {line[3 - LONGEST // 2 :]}"
        super().__init__(line)


def first_line(error: BaseException) -> str:
    """The first line of what another package raised; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

"""The one exception that callers are meant to show to a person."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used. The message is one sentence that names the mend.

    The command line prints it and exits with status 2; the app shows it in a box. Anything else that is
    raised is a defect of this program and keeps its traceback.
    """

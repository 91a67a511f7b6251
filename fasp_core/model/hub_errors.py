"""What to do where a hub does not give what is asked of it: one sentence for each cause. Tokens are never shown."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fasp_core.errors import InputError, first_line

_LOGIN = "log in with 'hf auth login' or set HF_TOKEN"


class Unreachable(InputError):
    """The hub gives no answer now; `reason` says why. What was fetched before can be used."""

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(f"{reason}: {mend}")
        self.reason = reason


def endpoint() -> str:
    """The address of the hub, HF_ENDPOINT or https://huggingface.co, without a user's name and password."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def explained(error: BaseException, repo: str, revision: str = "", file: str = "", kind: str = "") -> InputError:
    """What went wrong and what to do.

    Parameters
    ----------
    file : the one that was fetched, if any.
    kind : what stands before the repository in the hub's addresses: "datasets/", or "" for models.
    """
    chain = list(_causes(error))
    page = f"{endpoint()}/{kind}{repo}"
    status = next((s for e in chain if (s := _status(e)) is not None), 0)
    if _any(chain, "RevisionNotFoundError"):
        return InputError(
            f"'{repo}' has no revision '{revision or 'main'}' on {endpoint()}: give a branch, a tag, a commit or "
            f"refs/pr/NUMBER, as {page}/tree/main lists them."
        )
    if _any(chain, "RemoteEntryNotFoundError", "EntryNotFoundError") and status == 404:
        return InputError(f"'{repo}' lacks {file or 'a file that is needed'} on {endpoint()}: check it at {page}.")
    if refused := _refused(chain, status, repo, page):
        return InputError(refused)
    full = next((e for e in chain if isinstance(e, OSError) and e.errno in _DISK), None)
    if full is not None:
        from huggingface_hub import constants

        return InputError(
            f"The files of '{repo}' cannot be written to the hub's cache ({constants.HF_HUB_CACHE}: {full.strerror}): "
            "make room there, or set HF_HOME to another folder."
        )
    what = f"The download of '{file}' of '{repo}'" if file else f"The look-up of '{repo}'"
    if status == 429:
        return Unreachable(
            f"The hub at {endpoint()} was asked too often by this address or account (429)",
            f"try again {_later(chain)}; those who {_LOGIN} may ask more often.",
        )
    if status >= 500:
        return Unreachable(
            f"The hub at {endpoint()} has a fault of its own ({status})",
            "try again later, or load what was fetched before with HF_HUB_OFFLINE=1.",
        )
    if _any(chain, "ConnectError", "ProxyError", "OfflineModeIsEnabled", "UnsupportedProtocol"):
        return Unreachable(
            f"The hub at {endpoint()} cannot be reached ({_reason(chain[-1])})",
            "check network, proxy and HF_ENDPOINT, or give a local folder.",
        )
    if _any(chain, "TimeoutException"):
        return Unreachable(f"The hub at {endpoint()} does not answer", f"{what} was given up; try again later.")
    if _any(chain, "LocalProtocolError") or isinstance(chain[-1], UnicodeError):
        return InputError(f"The token for {endpoint()} holds letters that no token has: {_LOGIN} again.")
    if file:
        return InputError(
            f"{what} was cut off or damaged ({_reason(chain[-1])}): run the same again; files that are whole stay."
        )
    return Unreachable(
        f"The hub at {endpoint()} gave no answer that can be read ({_reason(chain[-1])})",
        "check HF_ENDPOINT and proxy, or try again later.",
    )


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def _refused(chain: list[BaseException], status: int, repo: str, page: str) -> str:
    """Why a repository may not be read; "" if that is not what is wrong."""
    if _any(chain, "GatedRepoError"):
        if status == 403:
            whose = "the account of the token in use" if _token() else "this account"
            return (
                f"'{repo}' is gated, and {whose} has no access (403): ask for it at {page}, "
                "or use the token of an account that has it ('hf auth login', or HF_TOKEN)."
            )
        return f"'{repo}' is gated: accept its terms or ask for access at {page}, then {_LOGIN}."
    if _any(chain, "DisabledRepoError"):
        return f"'{repo}' was disabled on {endpoint()}: use another model."
    if _any(chain, "RepositoryNotFoundError"):
        how = f"if it is private, {_LOGIN}" + (" of an account that may read it" if _token() else "")
        return f"'{repo}' is no folder here and no repository on {endpoint()}, or it is private: check the name; {how}."
    if status == 401:
        return f"The token for {endpoint()} is not accepted (401): {_LOGIN} with one that is valid."
    if status == 403:
        return (
            f"'{repo}' may not be read with the token in use (403): look at {page} who may, and {_LOGIN} with a token "
            "that may read it."
        )
    if status == 404:
        return f"'{repo}' is no folder here and no repository on {endpoint()}: check the name at {page}."
    return ""


def _any(chain: list[BaseException], *names: str) -> bool:
    """By name: the client's errors come from another package in each of its versions."""
    return any(kind.__name__ in names for error in chain for kind in type(error).__mro__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    found = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def _later(chain: list[BaseException]) -> str:
    headers: Any = next((e.response.headers for e in chain if hasattr(e, "response")), {})
    wait = headers.get("Retry-After", "")
    return f"in {wait} seconds" if str(wait).isdigit() else "later"


def _token() -> str:
    from huggingface_hub import get_token

    return get_token() or ""


def _reason(error: BaseException) -> str:
    """The first line of an error, without a token and without passwords in addresses."""
    text = first_line(error)
    if token := _token():
        text = text.replace(token, "…")
    return re.sub(r"\bhf_\w+", "…", re.sub(r"(\w+://)[^/\s@]*@", r"\1", text))

"""How a command is declared: a function whose parameters are options, or groups of options that commands share.

A group is a frozen dataclass whose fields are options. A command gives its result as `Said`: one document, which --json
prints, and the same as text for people. What it or a library prints meanwhile goes to stderr.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

import typer

from fasp_core.cli.options import Json
from fasp_core.console import to_json, working

Said = tuple[dict[str, Any], Callable[[], str]]  # the document; what gives the text


def command(app: typer.Typer) -> Callable[[Callable[..., Said]], Callable[..., Said]]:
    """Register a function under its name, with its docstring as help.

    A parameter `progress` is given what draws progress bars; one whose type is a dataclass is made from the options
    that are its fields; any other is an option, as in Typer. --json is added.
    """

    def register(function: Callable[..., Said]) -> Callable[..., Said]:
        hints = get_type_hints(function, include_extras=True)
        groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
        options = []
        for name, parameter in inspect.signature(function).parameters.items():
            if name in groups:
                shared = get_type_hints(groups[name], include_extras=True)
                options += [_option(f.name, shared[f.name], f.default) for f in fields(groups[name])]
            elif name != "progress":
                options.append(_option(name, hints[name], parameter.default))
        options.append(_option("as_json", Json, False))

        def call(as_json: bool, **given: Any) -> None:
            with working() as progress:
                for name, group in groups.items():
                    given[name] = group(**{f.name: given.pop(f.name) for f in fields(group)})
                if "progress" in hints:
                    given["progress"] = progress
                document, text = function(**given)
            print(to_json(document) if as_json else text())
            if document.get("failed"):
                raise typer.Exit(1)

        call.__doc__, call.__name__ = function.__doc__, function.__name__
        call.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        call.__annotations__ = {option.name: option.annotation for option in options}
        app.command(function.__name__.rstrip("_"))(call)
        return function

    return register


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    given = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=given, annotation=annotation)

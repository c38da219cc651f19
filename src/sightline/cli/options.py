"""Options of a command in groups: each is a dataclass, so that a command with many options has few arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer in which every argument that is a dataclass is replaced by options, one for each field.

    Args:
        command: takes plain arguments, and dataclasses whose fields are annotated as options are.
    """
    own = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: p.annotation for name, p in own.parameters.items() if is_dataclass(p.annotation)
    }
    wanted: list[Parameter] = []
    for name, parameter in own.parameters.items():
        if name in groups:
            hints = get_type_hints(groups[name], include_extras=True)
            wanted += [_option(each, hints[each.name]) for each in fields(groups[name])]
        else:
            wanted.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: group(**{each.name: given.pop(each.name) for each in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    shown: Any = run
    shown.__signature__ = own.replace(parameters=wanted)
    shown.__annotations__ = {each.name: each.annotation for each in wanted}
    return run


def _option(field: Field[Any], annotation: Any) -> Parameter:
    """A field of a group as an argument."""
    default = Parameter.empty if field.default is MISSING else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

"""The settings of handlers: from the names of the environment to each handler's own model."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from usher.handler import Handler
from usher.settings.environment import PREFIX, Environment, leaves
from usher.settings.report import mistakes


def handler_settings(handler: Handler, options: Mapping[str, str], problems: list[str]) -> BaseModel | None:
    """Read the settings of *handler* from its *options*; add a line to *problems* for each mistake."""
    prefix = f"{PREFIX}{handler.name.upper()}__"
    given = {prefix + option.upper(): text for option, text in options.items()}
    if handler.settings is None:
        problems += [f"{name}: the handler {handler.name} has no settings; remove it" for name in given]
        return None
    filled = Environment(given, handler.settings, prefix)
    problems += filled.problems
    try:
        return handler.settings.model_validate(filled.values)
    except ValidationError as error:
        problems += mistakes(error, filled, leaves(handler.settings, prefix), prefix)
        return None

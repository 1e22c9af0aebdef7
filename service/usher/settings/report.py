"""Show settings to people: a value as text, a mistake as a sentence. Hides pydantic's jargon, and every secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from usher.outcome import duration_text
from usher.redact.credentials import names_credential
from usher.settings.environment import PREFIX, Environment, Leaf
from usher.settings.tenant import GROUP

MASK = "********"
_LOGIN = re.compile(r"//[^/]*@")  # greedy, blanks too: what is wrong with a URL may be its password
_ECHOES = {"default_factory_not_called"}
"""Kinds of error that only follow from another one, which is reported."""


class SettingsError(Exception):
    """The settings can't be used: one line for each mistake, with its name, its value unless secret, and the way out."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class SettingRow(NamedTuple):
    """One line of a table of settings: *text* is its default or its value, *note* its meaning or where the value is from."""

    name: str
    text: str
    note: str


def current(leaf: Leaf, settings: BaseModel) -> SettingRow:
    """A setting as it is in force; the note is ``set`` or ``default``."""
    owner, value = _owner(leaf, settings), _value(leaf, settings)
    text = (MASK if value else "") if leaf.secret else _as_text(value, duration=leaf.is_duration)
    return SettingRow(leaf.name, text, "set" if leaf.path[-1] in owner.model_fields_set else "default")


def is_short_secret(leaf: Leaf, settings: BaseModel, least: int) -> bool:
    """Whether a setting is set to a secret, or holds one, that is shorter than *least* characters."""
    value = _value(leaf, settings)
    secrets = value if isinstance(value, tuple) else (value,)
    return any(isinstance(secret, SecretStr) and len(secret) < least for secret in secrets)


def option_row(name: str, text: str) -> SettingRow:
    """A free-form option, of which only the name shows whether it is a secret."""
    secret = names_credential(name.rpartition("__")[2], "setting")
    return SettingRow(name, MASK if secret else _without_login(text), "set")


def default_text(leaf: Leaf) -> str:
    """The default of a setting, as it would be written."""
    default = leaf.field.default
    return "" if default is PydanticUndefined else _as_text(default, duration=leaf.is_duration)


def sentences(error: ValidationError, known: Iterable[Leaf], prefix: str = PREFIX) -> Iterator[str]:
    """One line for each thing that *error* holds: name, value unless secret, way out. All names begin with *prefix*."""
    by_path = {leaf.path: leaf for leaf in known}
    for detail in error.errors(include_url=False):
        path = tuple(str(part) for part in detail["loc"])
        leaf = next((by_path[path[:end]] for end in range(len(path), 0, -1) if path[:end] in by_path), None)
        lines = str(detail.get("ctx", {}).get("error", ""))
        if lines and (not path or lines.startswith((PREFIX, GROUP))):  # about several settings: the text names them
            group = prefix + "".join(f"{part.upper()}__" for part in path)
            yield from lines.replace(GROUP, group).splitlines()
        elif detail["type"] not in _ECHOES:
            name = leaf.name if leaf else "__".join(path).upper()
            value = "" if leaf is None or leaf.secret or detail["type"] == "missing" else f"={_quoted(detail['input'])}"
            yield f"{name}{value}: {_hint(detail)}"


def mistakes(error: ValidationError, found: Environment, known: Iterable[Leaf], prefix: str = PREFIX) -> Iterator[str]:
    """Write what *error* holds as sentences, but not that a secret is missing whose file can't be read: *found* says that."""
    return (line for line in sentences(error, known, prefix) if line.partition(":")[0] not in found.unread)


def _owner(leaf: Leaf, settings: BaseModel) -> Any:
    owner: Any = settings
    for group in leaf.path[:-1]:
        owner = getattr(owner, group)
    return owner


def _value(leaf: Leaf, settings: BaseModel) -> Any:
    return getattr(_owner(leaf, settings), leaf.path[-1])


def _hint(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if "error" in context:
        return str(context["error"])
    if "expected" in context:
        return f"should be one of {context['expected']}"
    if detail["type"] == "missing":
        return "is needed; set it"
    if detail["type"] == "bool_parsing":
        return "should be on or off"
    if detail["type"] == "extra_forbidden":
        return "there is no such setting; remove it"
    return detail["msg"][:1].lower() + detail["msg"][1:]


def _quoted(value: Any) -> str:
    return _without_login(repr(_as_text(value, duration=False)))


def _without_login(text: str) -> str:
    return _LOGIN.sub(f"//{MASK}@", text)


def _as_text(value: Any, *, duration: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return ",".join(_as_text(part, duration=duration) for part in value)
    if duration and isinstance(value, int | float):
        return duration_text(value)
    return _without_login(str(value))

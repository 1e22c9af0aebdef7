"""From the names and files of the environment to the fields of a model: hides how a setting is named and found.

``USHER_`` + field, ``__`` between a group and its field, ``_FILE`` where a secret lies in a file. The field ``on`` of a group has the
group's own name: ``USHER_RECEIPTS=off``. A name that starts like ours and is not ours is a mistake that would otherwise go unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from usher.handler import nearest
from usher.kafka_options import SecretFile
from usher.redact.credentials import names_credential
from usher.registry import SYSTEMS
from usher.settings.tenant import TENANT_NAME
from usher.settings.values import SECRETS, split

PREFIX = "USHER_"
_RENAMED = {"USHER_LOG": "USHER_EVENT_LOG"}
"""Old names of settings, each with the one that it has now."""
FREE_GROUP = "kafka"
"""The group whose names are a client's and not ours: all of them are taken."""

_FILE = "_FILE"
_WITHIN, _SWITCH = "__", "on"
_SERVICE_LINK = re.compile(
    r"USHER_(?P<other>[A-Z0-9_]+?_)??(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)?)"
)


class Leaf(NamedTuple):
    """One setting: its environment name, where it is in the model, and its field."""

    name: str
    path: tuple[str, ...]
    field: FieldInfo

    @property
    def secret(self) -> bool:
        return _holds_secret(self.field.annotation)

    @property
    def is_duration(self) -> bool:
        """Whether numbers in it are seconds."""
        parsed = any(
            isinstance(part, BeforeValidator) for part in self.field.metadata
        )  # a plain number is a plain number
        return parsed and self.field.annotation in {float, tuple[float, ...]}

    @property
    def several(self) -> bool:
        """Whether the text is a comma-separated list."""
        return get_origin(self.field.annotation) in {tuple, list, set, frozenset}


def leaves(model: type[BaseModel], name: str = PREFIX, path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Every setting of *model* and its groups, in the order of declaration, without the free-form ones."""
    for key, field in model.model_fields.items():
        own = name.removesuffix(_WITHIN) if path and key == _SWITCH else name + key.rstrip("_").upper()
        here = (*path, key)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, own + _WITHIN, here)
        elif not field.exclude:
            yield Leaf(own, here, field)


def _holds_secret(annotation: Any) -> bool:
    """Whether a type is, or contains, one of `SECRETS`."""
    return annotation in SECRETS or any(_holds_secret(part) for part in get_args(annotation))


class Environment:
    """The names of an environment, sorted into a model's fields. *problems* collects one line for each mistake.

    *unread* are the names of those secrets whose files can't be read. *values* is nested as the model is. Where the
    *prefix* is the service's own, *kafka* has the client's options, *options* the groups that may belong to handlers, and
    *tenants* what is set for identity systems: by system, by the tenant's name (empty for the first), then as it was given.
    """

    def __init__(self, given: Mapping[str, str], model: type[BaseModel], prefix: str = PREFIX) -> None:
        self.values: dict[str, Any] = {}
        self.options: dict[str, dict[str, str]] = {}
        self.kafka: dict[str, str] = {}
        self.tenants: dict[str, dict[str, dict[str, str]]] = {}
        self.problems: list[str] = []
        self.unread: set[str] = set()
        self._given = given
        self._prefix = prefix
        self._leaves = {leaf.name: leaf for leaf in leaves(model, prefix)}
        self._groups = {leaf.path[0].upper() for leaf in self._leaves.values() if len(leaf.path) > 1}
        for name, text in given.items():
            if name.startswith(prefix) and text and not _is_service_link(name, text):
                self._take(name, text)

    def _take(self, name: str, text: str) -> None:
        group, nested, field = name.removeprefix(PREFIX).partition("__")
        if self._prefix == PREFIX and nested and group.lower() in SYSTEMS:
            first, more, _ = field.lower().partition("__")
            tenant = first if more and TENANT_NAME.fullmatch(first) else ""
            self.tenants.setdefault(group.lower(), {}).setdefault(tenant, {})[name] = text
            return
        if not _is_utf8(text) and not ((leaf := self._leaves.get(name)) and leaf.secret and leaf.several):
            self.problems.append(f"{name}: is not UTF-8 text; write it anew")
            return
        free = self._prefix == PREFIX and nested and field and group not in self._groups
        plain = name.removesuffix(_FILE)
        if leaf := self._leaves.get(name):
            self.put(leaf.path, split(text) if leaf.several else text)
        elif plain != name and (leaf := self._leaves.get(plain)) and leaf.secret:
            if (content := self._from_file(name, text)) is not None:
                self.put(leaf.path, split(content) if leaf.several else content)
        elif free and group.lower() == FREE_GROUP:
            self._take_kafka(name, field.lower(), text)
        elif free:
            self.options.setdefault(group.lower(), {})[field.lower()] = text
        elif name in _RENAMED:
            self.problems.append(f"{name}: is called {_RENAMED[name]} now; rename it")
        else:
            near = nearest(name, [*self._leaves, *self._file_names(name)])
            self.problems.append(f"{name}: there is no such setting{near}; correct or remove it")

    def _file_names(self, name: str) -> list[str]:
        return [leaf.name + _FILE for leaf in self._leaves.values() if leaf.secret] if name.endswith(_FILE) else []

    def _take_kafka(self, name: str, option: str, text: str) -> None:
        target = option.removesuffix(_FILE.lower())
        if target == option or not names_credential(target, "setting"):
            self.kafka[option] = text
        elif self._from_file(name, text) is not None:
            self.kafka[target] = SecretFile(text, partial(read_secret, text))

    def _from_file(self, name: str, path: str) -> str | None:
        plain = name.removesuffix(_FILE)
        if self._given.get(plain):
            self.problems.append(f"{name}: {plain} is given as well; keep one of the two")
            return None
        try:
            return read_secret(path)
        except ValueError as error:
            self.problems.append(f"{name}={path!r}: {error}")
            self.unread.add(plain)
            return None

    def put(self, path: tuple[str, ...], value: Any) -> None:
        """Set the value of one field, making its group where needed."""
        into = self.values
        for group in path[:-1]:
            into = into.setdefault(group, {})
        into[path[-1]] = value


def _is_utf8(text: str) -> bool:
    """Whether an environment's text was text; a webhook's secret need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_secret(path: str) -> str:
    """The content of a secret's file, without the newline at its end.

    Raises:
        ValueError: it can't be read, or is empty.
    """
    try:
        content = Path(path).read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"can't be read: {why}; mount the secret there, or correct the path") from None
    if not content:
        raise ValueError("is empty; it should hold the secret and nothing else")
    return content


def _is_service_link(name: str, text: str) -> bool:
    """Whether Kubernetes put it there, for a Service named usher or usher-something."""
    match = _SERVICE_LINK.fullmatch(name)
    if match is None or "__" in name:
        return False
    # `USHER_HTTP_PORT=8080` is somebody's mistake, `USHER_HTTP_PORT=tcp://10.0.0.7:8080` is the Service usher-http.
    return match["other"] is None or not name.endswith("_PORT") or "://" in text

"""The values of secret settings, ours and those of handlers: what must be masked wherever a text quotes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

from usher.addresses import SmtpServer
from usher.handler import Handler
from usher.proxies import Proxies, Proxy
from usher.redact import know
from usher.redact.credentials import names_credential
from usher.settings.environment import leaves, read_secret
from usher.settings.values import split

_FILE = "_file"


def secret_values(value: Any) -> Iterator[str]:
    """Yield the secrets in a setting, a model of settings, or a collection of them."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, SecretBytes):
        yield value.get_secret_value().decode("utf-8", "replace")
    elif isinstance(value, SmtpServer | Proxy):
        yield value.password
    else:
        for item in _within(value):
            yield from secret_values(item)


def _within(value: Any) -> Iterable[Any]:
    if isinstance(value, BaseModel):
        return [getattr(value, name) for name in type(value).model_fields]
    if isinstance(value, Proxies):
        return value.by_scheme.values()
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple | set | frozenset) else ()


def know_settings(settings: BaseModel, *options: Mapping[str, Any]) -> None:
    """Have the secrets in *settings* masked from now on, and those of free-form *options* whose names are those of credentials."""
    given = (item for group in options for item in group.items())
    named = (str(text) for name, text in given if names_credential(name) and not name.endswith(_FILE))
    know("settings", (*secret_values(settings), *named))


def know_handlers(found: Iterable[Handler], options: Mapping[str, Mapping[str, str]]) -> None:
    """Have the secrets of handlers masked from now on, as *options* give them, by handler and field; nothing is checked."""
    know("handlers", (text for handler in found for text in _given(handler, options.get(handler.name, {}))))


def _given(handler: Handler, options: Mapping[str, str]) -> Iterator[str]:
    for leaf in leaves(handler.settings, "") if handler.settings else ():
        if not leaf.secret:
            continue
        name = "__".join(leaf.path)
        text = options.get(name)
        if text is None and (path := options.get(name + _FILE)):
            with contextlib.suppress(ValueError):  # that it can't be read is said where the settings are needed
                text = read_secret(path)
        if text:
            yield from split(text) if leaf.several else (text,)

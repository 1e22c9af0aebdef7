"""Find personal data and secrets in a text, and take them out.

This is done to every text that comes from a handler or a provider and goes to a log line, a header or a terminal: exception
messages quote the values that they are about. The patterns are broad on purpose: masking a number too many does no harm.
"""

from __future__ import annotations

import re

from usher.redact.credentials import names_credential

_LIMIT = 300
"""The characters that are kept of a text: headers are copied into every later record, and must stay small."""

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 <secret>"),
    (re.compile(r"\bSG\.[A-Za-z0-9._-]{10,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), "<secret>"),
    (re.compile(r"://[^/\s]+@"), "://<secret>@"),
)
_NAME = re.compile(r"(?<![\w.-])([\w.-]+)[\]\"']*\s*[=:]\s*")
_VALUE = re.compile(r"\"[^\"]*\"?|'[^']*'?|[^\s\"'&,;}]+")
_PEOPLE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[^\s<>\"(),;:@]+@[^\s<>\"'(),;@]+\.[^\s<>\"'(),;@]+"), "<email>"),
    (re.compile(r"\+?\(?\d[\d\s().-]{5,}\d"), "<number>"),
)


def scrub(text: object, limit: int = _LIMIT) -> str:
    """Return *text* on one line of at most *limit* characters, without addresses, phone numbers or credentials."""
    one_line = " ".join(_written(text)[: limit * 8].split())
    for pattern, mask in _SECRETS:
        one_line = pattern.sub(mask, one_line)
    one_line = _without_named(one_line)
    for pattern, mask in _PEOPLE:
        one_line = pattern.sub(mask, one_line)
    return one_line if len(one_line) <= limit else one_line[: limit - 1] + "…"


def _without_named(text: str) -> str:
    """*text* with the values masked that are named like credentials, as in ``token=…`` or ``"code": "…"``."""
    parts, end = [], 0
    for name in _NAME.finditer(text):
        value = _VALUE.match(text, name.end())
        if value and value.end() > end and names_credential(name[1], "text"):
            parts += [text[end : name.end()], "<secret>"]
            end = value.end()
    return "".join([*parts, text[end:]])


def _written(text: object) -> str:
    """Return *text* so that UTF-8 can encode it, even if it is an exception that can't be printed."""
    try:
        return str(text).encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001  the exception of a handler is code of others, and must not break the report of it
        return f"{type(text).__name__} (it can't be printed)"

"""What counts as personal data or a secret in a text, and how it is taken out.

Used on every text that leaves a handler or a provider and ends in a log line, a header or a terminal: exception
messages quote what they choke on. The rule is blunt on purpose: a number too many masked costs nothing.
"""

from __future__ import annotations

import re

_LIMIT = 300
"""Characters kept of a text: headers are copied into every later record, and must stay small."""

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 <secret>"),
    (re.compile(r"\bSG\.[A-Za-z0-9._-]{10,}"), "<secret>"),
    (re.compile(r"://[^/\s:@]+:[^/\s@]+@"), "://<secret>@"),
    (
        re.compile(r"(?i)\b(password|passwd|secret|token|api[_-]?key|code)(\"?'?\s*[=:]\s*\"?'?)[^\s\"'&,;}]+"),
        r"\1\2<secret>",
    ),
    (re.compile(r"[^\s<>\"'(),;:@]+@[^\s<>\"'(),;@]+\.[^\s<>\"'(),;@]+"), "<email>"),
    (re.compile(r"\+?\(?\d[\d\s().-]{5,}\d"), "<number>"),
)


def scrub(text: object, limit: int = _LIMIT) -> str:
    """*text* on one line, at most *limit* characters, without addresses, phone numbers or credentials."""
    one_line = " ".join(str(text)[: limit * 8].split())
    for pattern, mask in _PATTERNS:
        one_line = pattern.sub(mask, one_line)
    return one_line if len(one_line) <= limit else one_line[: limit - 1] + "…"

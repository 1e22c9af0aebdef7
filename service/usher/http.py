"""What an HTTP server answers, as far as we look at it: a body of bounded size, the document in it, the wait it asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import aiohttp

from usher.outcome import LONGEST_WAIT

_DEEPEST = 150
"""Levels of a document that are read; `usher.systems.document` takes somewhat more."""
_SECONDS = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_MOMENT = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True)
class Answer:
    """An answer of a server. *headers* are looked up without regard to case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @cached_property
    def document(self) -> Any:
        """The JSON document in the body, as a log can store it; None where there is none that can be read."""
        try:
            return _storable(json.loads(self.body, parse_constant=_nothing))
        except (ValueError, RecursionError):
            return None


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body of a response, at most *limit* bytes.

    Raises:
        aiohttp.ClientError, TimeoutError, OSError: it is larger, or did not come whole.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise aiohttp.ClientPayloadError("the answer is too large")
    return bytes(body)


def asked_wait(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that an answer asks us to wait: by ``Retry-After``, else until the reset of a rate limit that is used up.

    None where it asks for none: a time that is over is no wait, and more than a year is no answer. The caller has a wait
    of its own, and knows better than "at once" and "never". *now* is in Unix seconds.
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    return next((wait for wait in _waits(lower, now) if 0 < wait <= LONGEST_WAIT), None)


def _waits(headers: Mapping[str, str], now: float) -> Iterator[float]:
    after, reset = headers.get("retry-after", ""), headers.get("x-ratelimit-reset", "")
    if _SECONDS.fullmatch(after):  # RFC 9110 knows whole seconds; some servers say parts of them
        yield float(after)
    else:
        try:
            at = parsedate_to_datetime(after)  # also the obsolete forms, of which one names no zone: it is UTC
            yield (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            pass
    if _MOMENT.fullmatch(reset) and headers.get("x-ratelimit-remaining", "0") == "0":
        yield float(reset) - now


def _nothing(_constant: str) -> None:
    """Stands for NaN and Infinity, which are no JSON."""


def _storable(node: Any, room: int = _DEEPEST) -> Any:
    """*node* with what no reader of the log would take replaced: lone halves of characters, and what lies too deep.

    Users choose their names and write their metadata: one entry of a system's log must not hold up all that follow.
    """
    if isinstance(node, str):
        return node if node.isascii() else node.encode("utf-8", "replace").decode()
    if isinstance(node, dict):
        return {_storable(name): _storable(item, room - 1) for name, item in node.items()} if room else {}
    if isinstance(node, list):
        return [_storable(item, room - 1) for item in node] if room else []
    return node

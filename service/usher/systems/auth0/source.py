"""The source of Auth0: its events (event streams) and its tenant logs (log streams), by webhook, from the API or from a topic.

Hides that the two have different contents and shapes: new users are in both, changed passwords in the logs only. Auth0 does
not sign: a caller proves itself by what it sends in ``Authorization``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from usher.event import Undecodable
from usher.systems.auth0.logs import Auth0LogEntry
from usher.systems.auth0.rules import Auth0Rules
from usher.systems.auth0.values import dict_in, user_of
from usher.systems.canonical import moment, text
from usher.systems.document import NotJson, dump, parse
from usher.systems.source import Arrival, arrival, check_secrets, derive, equal_to_any, undecoded

NAME = "auth0"
_PREFIX = "com.auth0."
"""What one page of Auth0's puts before the types of its events; its schema, and what it sends, do not."""
_OF_ACCOUNTS = frozenset(("user.created", "user.deleted"))
"""The events of which the logs have a report, too."""
_MOST = 10_000
"""Events in a body, far more than Auth0 sends: everything else waits while a body is read."""
_SET_ASIDE = "auth0."
"""Begins the type of an event of `_OF_ACCOUNTS` where these are taken from the logs: no handler is for it."""


class Auth0Source:
    """One tenant of Auth0.

    Args:
        secrets: the values that prove a webhook in ``Authorization``: tokens, or ``user:password``.
        tenant: the ``event.tenant`` of its events; empty: as each event says.
        rules: who triggered what, and which of two reports of one fact counts.
    """

    name = NAME
    plain = False
    signs_body = False
    refusal = "Authorization is missing, or holds no known token and no known user:password"

    def __init__(self, secrets: Sequence[str] = (), tenant: str = "", rules: Auth0Rules | None = None) -> None:
        self._secrets = check_secrets(secrets)
        self.tenant = tenant
        self._rules = rules or Auth0Rules()

    def verified(self, headers: Mapping[str, str], body: bytes) -> bool:  # noqa: ARG002 - nothing is signed
        given = headers.get("authorization", "")
        matches = [equal_to_any(self._secrets, form) for form in _forms(given)]  # all: the time reveals nothing
        return any(matches)

    def arrivals(self, body: bytes, headers: Mapping[str, str], received: float) -> Sequence[Arrival]:  # noqa: ARG002
        """`Source.arrivals`: events one by one; log entries one by one, as an array, as lines, or as ``{"logs": […]}``."""
        arrivals: list[Arrival] = []
        for document in _documents(body):
            if isinstance(document, _Unread):
                arrivals.append(undecoded(NAME, self.tenant, document.content, document.reason))
            elif (found := self.of_document(_from_headers(document, headers))) is not None:
                arrivals.append(found)
        return arrivals

    def of_document(self, document: Any) -> Arrival | None:
        """Make the arrival of one event or log entry; None for an offset without an event, which only reports progress."""
        document = _out_of_envelope(document)
        if document is None:
            return None
        if _is_event(document):
            return self._of_event(document)
        if (entry := _log_entry(document)) is not None:
            return self._of_log(entry)
        return undecoded(NAME, self.tenant, document, "neither an event nor a log entry of Auth0")

    def _of_event(self, document: Mapping[str, Any]) -> Arrival:
        raw_type: str = document["type"]
        name = raw_type.removeprefix(_PREFIX)
        data = document["data"]
        about = data["object"]
        ruling = self._rules.of_event(name, document)
        set_aside = name in _OF_ACCOUNTS and self._rules.created_from != "events"
        return arrival(
            derive(
                NAME,
                data,
                id=text(document.get("id")) or _digest(document),
                type=_SET_ASIDE + name if set_aside else name,
                raw_type=raw_type,
                tenant=self.tenant or text(document.get("a0tenant")) or "",
                triggered_by=ruling.triggered_by,
                basis=ruling.basis,
                timestamp=moment(document.get("time")),
                user=user_of(about if "user_id" in about else dict_in(about, "user") or about),
            )
        )

    def _of_log(self, data: dict[str, Any]) -> Arrival:
        entry = Auth0LogEntry(data)
        ruling = self._rules.of_log(entry)
        return arrival(
            derive(
                NAME,
                entry.harmless(),
                id=entry.id or _digest(data),
                type=self._rules.type_of_log(entry, ruling.triggered_by),
                raw_type=entry.code,
                tenant=self.tenant or text(data.get("tenant_name")) or "",
                triggered_by=ruling.triggered_by,
                basis=ruling.basis,
                timestamp=moment(data.get("date")),
                user=entry.user(),
            )
        )


class _Unread:
    """A line that holds no document, and the reason."""

    def __init__(self, content: bytes, reason: str) -> None:
        self.content, self.reason = content, reason


def _forms(given: str) -> Iterator[str]:
    """Read an Authorization header in each possible way: as a whole, as a bearer token, as a user and password."""
    scheme, _, rest = given.partition(" ")
    yield given
    yield rest.strip() if scheme.lower() == "bearer" else ""
    try:
        basic = base64.b64decode(rest.strip(), validate=True) if scheme.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        basic = b""
    yield basic.decode("utf-8", "surrogateescape")


def _documents(body: bytes) -> list[Any]:
    """Read the documents in a body or record, in order.

    Raises:
        NotJson: there is no document.
    """
    try:
        document = parse(body)
    except NotJson:
        lines = [line for line in body.splitlines() if line.strip()]
        if len(lines) > _MOST:
            return [_too_many(body, len(lines))]
        documents = [_line(line) for line in lines]
        if len(lines) < 2 or all(isinstance(document, _Unread) for document in documents):
            raise
        return documents
    except Undecodable as refusal:
        return [_Unread(body, str(refusal))]
    if isinstance(document, dict) and isinstance(document.get("logs"), list):
        document = document["logs"]
    if isinstance(document, list):
        return document if len(document) <= _MOST else [_too_many(body, len(document))]
    return [document]


def _too_many(body: bytes, count: int) -> _Unread:
    return _Unread(body, f"a body holds at most {_MOST} events or log entries, this one holds {count}")


def _line(line: bytes) -> Any:
    try:
        return parse(line)
    except Undecodable as refusal:
        return _Unread(line, str(refusal))


def _from_headers(document: Any, headers: Mapping[str, str]) -> Any:
    """Put the envelope from the headers around an event (CloudEvents in binary form, over HTTP or Kafka); else change nothing."""
    if not isinstance(document, dict) or "type" in document or not isinstance(document.get("object"), dict):
        return document
    names = ("type", "id", "time", "a0tenant", "a0purpose")
    envelope = {name: headers.get(f"ce-{name}", headers.get(f"ce_{name}")) for name in names}
    return {**envelope, "data": document} if envelope["type"] else document


def _out_of_envelope(document: Any) -> Any:
    """Take out what a message of the Events API, or a bridge's own CloudEvent, carries; None for an offset alone."""
    if isinstance(document, dict) and "offset" in document and "type" not in document:
        document = document.get("event")
    if isinstance(document, dict) and "specversion" in document:
        inner = document.get("data")
        if _is_event(inner) or _log_entry(inner) is not None:
            return inner
    return document


def _is_event(document: Any) -> bool:
    if not isinstance(document, dict) or text(document.get("type")) is None:
        return False
    return isinstance(document.get("data"), dict) and isinstance(document["data"].get("object"), dict)


def _log_entry(document: Any) -> dict[str, Any] | None:
    """Find the log entry in *document*: in its ``data`` as streams send it, or itself as the API answers."""
    if not isinstance(document, dict):
        return None
    data = document.get("data")
    entry = {**data, "log_id": data.get("log_id") or document.get("log_id")} if isinstance(data, dict) else document
    named = any(text(entry.get(name)) for name in ("log_id", "_id", "date"))
    return entry if named and text(entry.get("type")) is not None and "specversion" not in entry else None


def _digest(document: Any) -> str:
    return hashlib.sha256(dump(document)).hexdigest()

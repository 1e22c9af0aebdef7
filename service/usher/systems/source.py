"""The protocol of all sources, and what they have in common. The rest of Usher knows no system by name.

A `Source` is one tenant of one identity system. It is pure: it verifies and reads what it is given, and makes no request.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from usher.delivery import Record, bounded
from usher.event import Event, Undecodable
from usher.redact import scrub
from usher.systems.canonical import canonical_document, event_of
from usher.systems.document import dump, parse, unwrap
from usher.systems.prefilter import never_filtered
from usher.systems.strip import strip


class Arrival(NamedTuple):
    """What a source has made of one thing that came in: the event, and the bytes to store, which `decode` reads as the same event.

    *event* is None if there is no event in it: *reason* says why, and *value* is what an operator will see of it.
    """

    event: Event | None
    value: bytes
    reason: str = ""


class Source(Protocol):
    """One tenant of one identity system: how what it sends is verified, and how that becomes Events."""

    @property
    def name(self) -> str:
        """The system's name, as in ``event.source``."""

    @property
    def tenant(self) -> str:
        """The tenant whose events it reads; empty: each event names its own."""

    @property
    def plain(self) -> bool:
        """Whether the system's own bytes hold ``context.triggered_by`` unchanged: only then may they be filtered unparsed."""

    @property
    def refusal(self) -> str:
        """The answer to a caller that has not proved who it is."""

    @property
    def signs_body(self) -> bool:
        """Whether calls are proved by a signature over the body; else by a header alone, before the body is read."""

    def verified(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether a webhook call is from the system; *body* is empty where only headers prove it.

        *headers* have lower-case names; compares in constant time.
        """

    def arrivals(self, body: bytes, headers: Mapping[str, str], received: float) -> Sequence[Arrival]:
        """Read a webhook's body, or one record of a raw topic: its arrivals in order, none for a test or a keep-alive.

        All credentials are removed. *received* is in Unix seconds.

        Raises:
            NotJson: the body is of another format altogether.
        """


def arrival(event: Event) -> Arrival:
    """Make the arrival of an event that a source has derived: it is stored in the canonical form."""
    return Arrival(event, dump(strip(canonical_document(event))))


def undecoded(source: str, tenant: str, content: Any, reason: str) -> Arrival:
    """Make the arrival of content that is no event: a stub with its size and digest, and with nothing of it.

    Content that can't be read can't be stripped of credentials, so none of it is stored.
    """
    body = content if isinstance(content, bytes) else dump(content)
    digest, why = hashlib.sha256(body).hexdigest(), scrub(reason)
    stub = {"undecodable": why, "source": source, "tenant": tenant, "bytes": len(body), "sha256": digest}
    return Arrival(None, never_filtered(dump(stub)), why)


def too_large(arrival: Arrival) -> Arrival:
    """Make the stub of an arrival that the log will never take: else it would hold up all that comes with it."""
    event = arrival.event
    if event is None:
        return undecoded("", "", arrival.value, f"{arrival.reason}; and it is too large for the log")
    return undecoded(event.source, event.tenant, arrival.value, f"event {event.id} is too large for the log")


def derive(
    source: str,
    document: Mapping[str, Any],
    *,
    id: str,  # noqa: A002
    type: str,  # noqa: A002
    raw_type: str,
    tenant: str,
    triggered_by: str,
    basis: str,
    timestamp: float | None,
    user: Mapping[str, Any],
    context: Mapping[str, Any] | None = None,
) -> Event:
    """Make the Event of a system that does not write the canonical form. *document* is what it wrote, and becomes the payload.

    Args:
        source: the system's name.
        document: kept as ``payload``, less credentials; it may be changed in place.
        id: the event's own, or one that is derived from what makes the event unique.
        type: canonical where there is such a type, else *raw_type*.
        raw_type: the system's own name for it.
        tenant: which of the system's tenants.
        triggered_by: ``admin_api``, ``user``, ``system`` or ``unknown``.
        basis: the rule that decided so, for `usher explain`.
        timestamp: when it happened, in Unix seconds; None: the system does not say.
        user: fields of `usher.event.User`.
        context: further fields of the context.
    """
    fields = {"timestamp": timestamp, "user_id": user.get("id"), **(context or {})}
    known = {name: value for name, value in fields.items() if value is not None}
    return event_of(
        {},
        b"",
        id=id,
        type=type,
        raw_type=raw_type,
        source=source,
        tenant=tenant,
        user={name: value for name, value in user.items() if value is not None},
        context={**known, "triggered_by": triggered_by, "triggered_by_basis": basis},
        payload=strip(dict(document)),
    )


def foreign(source: Source, arrival: Arrival) -> bool:
    """Return whether *arrival* names another tenant than the one that *source* is set up for."""
    return bool(source.tenant) and arrival.event is not None and arrival.event.tenant not in ("", source.tenant)


def own(source: Source, arrival: Arrival) -> Arrival:
    """Return *arrival*, or a stub where it names another tenant than the one that *source* is set up for."""
    event = arrival.event
    if event is None or not foreign(source, arrival):
        return arrival
    reason = f"an event of {event.tenant}: only those of {source.tenant} are taken here"
    return undecoded(source.name, event.tenant, arrival.value, reason)


def read_record(source: Source, record: Record) -> Arrival | None:
    """Read a record of a raw topic; None: it holds nothing that matters, or what another tenant writes to the same topic.

    CloudEvents in binary form need its headers.

    Never raises: a record that can't be read is an arrival without an event.
    """
    headers = {name.lower(): value.decode("utf-8", "replace") for name, value in record.headers if value is not None}
    value = record.value or b""
    try:
        arrivals = source.arrivals(value, headers, record.timestamp / 1000)
    except Undecodable as refusal:
        return undecoded(source.name, "", value, str(refusal))
    if len(arrivals) > 1:
        return undecoded(source.name, "", value, f"a record holds one event, this one holds {len(arrivals)}")
    return arrivals[0] if arrivals and not foreign(source, arrivals[0]) else None


def event_key(event: Event) -> bytes:
    """Make the record key of an event: its user, so that a user's events stay in one partition; without a user, the event."""
    return bounded(event.user.id or f"{event.tenant}/{event.id}").encode()


def document_of(body: bytes) -> Any:
    """Parse the JSON document in a body or record; a CloudEvent around it is removed.

    Raises:
        NotJson, Undecodable
    """
    return unwrap(parse(body))


def signed_by_any(secrets: Sequence[str], body: bytes, given: str) -> bool:
    """Return whether *given* is the hex HMAC-SHA256 of *body* by one of the secrets. All are tried: the time reveals nothing."""
    signature = _bytes(given.strip().lower())
    matches = [
        hmac.compare_digest(hmac.new(_bytes(secret), body, hashlib.sha256).hexdigest().encode(), signature)
        for secret in secrets
    ]
    return any(matches)


def equal_to_any(secrets: Sequence[str], given: str) -> bool:
    """Return whether *given* is one of the secrets itself, compared in constant time."""
    text = _bytes(given)
    matches = [hmac.compare_digest(_bytes(secret), text) for secret in secrets]
    return any(matches)


def _bytes(given: str) -> bytes:
    """Return the very bytes of an environment or a header, also if they are no UTF-8."""
    return given.encode("utf-8", "surrogateescape")


def check_secrets(secrets: Sequence[str]) -> tuple[str, ...]:
    """Return *secrets* unchanged.

    Raises:
        ValueError: one is empty: anybody could sign with it.
    """
    if isinstance(secrets, str) or not all(secrets):
        raise ValueError("secrets: a sequence is needed and none may be empty; an empty key signs for anybody")
    return tuple(secrets)

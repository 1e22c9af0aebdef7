"""The source of Authgear. Its raw events are almost canonical: only a few names differ, and where the user's addresses are.

Events reach us by webhook (the hooked types) or from the audit log (those, and the admin's password operations); the shape
is the same. No event says which messages Authgear itself has sent to the user: see `AuthgearHabits`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from usher.event import Event, Undecodable
from usher.systems.authgear.event_types import CREATE_AUTHENTICATOR, RAW_TYPES, RENAMED_TYPES
from usher.systems.canonical import context_of, event_of, of_envelope, text
from usher.systems.document import NotJson, dump, parse, unambiguous, unwrap
from usher.systems.prefilter import never_filtered
from usher.systems.source import Arrival, check_secrets, signed_by_any, undecoded
from usher.systems.strip import strip

NAME = "authgear"
SIGNATURE = "x-authgear-body-signature"
"""The hex HMAC-SHA256 of the raw body, without a time in it."""

_LOGIN_ID_VALUE = "https://authgear.com/claims/login_id/value"
_LOGIN_ID_TYPE = "https://authgear.com/claims/login_id/type"
_CLAIMS: Mapping[str, str] = {"username": "preferred_username", "email": "email", "phone": "phone_number"}
"""Where the attributes of a user, and the claims of an identity, hold the fields of `usher.event.User`."""
_OFF = ("is_disabled", "is_deactivated", "is_anonymized")
_NONE: Mapping[str, Any] = {}
_LOST = (".removed", ".disconnected")
"""Suffixes of the types whose ``identity`` the user has just lost: its address may be another person's by now."""
OUR_CALLS: Mapping[str, str] = {"usage": "usher"}
"""The mark in our calls of the Admin API; Authgear puts it into the ``audit_context`` of the events that they cause."""
_CREATING = 600.0
"""Seconds after a user's creation in which an expired password is part of it."""

Step = Literal["created", "reset"]
"""What an administrator does to an account and its password."""


@dataclass(frozen=True, slots=True)
class AuthgearHabits:
    """What the team's back office does with passwords, which no event says.

    *mails*: the steps at which it has Authgear mail the password (``sendPassword``; only users with an email address get it).
    *expires*: the steps after which it calls ``setPasswordExpired``.
    """

    mails: frozenset[Step] = frozenset()
    expires: frozenset[Step] = frozenset()

    def notified_by(self, event: Event) -> str | None:
        """Say how the user hears of *event* without us; None: in no way."""
        if event.context.triggered_by != "admin_api":
            return None
        step = None if event.raw_type == CREATE_AUTHENTICATOR else _STEPS.get(event.type)  # it mails nothing
        mailed = "Authgear mails the password itself (USHER_AUTHGEAR__SENDS_PASSWORD)"
        if step in self.mails and event.user.email:
            return mailed
        if step == "reset" and step in self.expires:
            return "the password is expired next, and a message about that follows (USHER_AUTHGEAR__EXPIRES_PASSWORD)"
        if event.type == "password.expired" and "created" in self.expires and _is_new(event):
            return "part of the creation of the user, which has a message of its own (USHER_AUTHGEAR__EXPIRES_PASSWORD)"
        if event.type == "password.expired" and "reset" in self.expires & self.mails and event.user.email:
            return mailed
        return None


_STEPS: Mapping[str, Step] = {"user.created": "created", "password.reset": "reset"}


class AuthgearSource:
    """One app of Authgear; without its id (*tenant*), several that share a signing secret: an event names its app itself."""

    name = NAME
    plain = True
    signs_body = True
    refusal = f"{SIGNATURE} is missing, or was not made from this body by a known secret"

    def __init__(
        self, secrets: Sequence[str] = (), habits: AuthgearHabits = AuthgearHabits(), tenant: str = ""
    ) -> None:
        self._secrets, self.tenant = check_secrets(secrets), tenant
        self._habits = habits

    def verified(self, headers: Mapping[str, str], body: bytes) -> bool:
        return signed_by_any(self._secrets, body, headers.get(SIGNATURE, ""))

    def arrivals(self, body: bytes, headers: Mapping[str, str], received: float) -> Sequence[Arrival]:  # noqa: ARG002
        """`Source.arrivals`. A document that is no event is stored without credentials; of one that can't be parsed, only a stub."""
        try:
            given = parse(body)
            document = unwrap(given)
            if document is not given and isinstance(document, dict) and "type" not in document:
                document = of_envelope(given, document)
        except NotJson:
            raise
        except Undecodable as refusal:
            return [undecoded(NAME, "", body, str(refusal))]
        return [self.arrival(document, body if document is given and unambiguous(body) else None)]

    def arrival(self, document: Any, value: bytes | None = None) -> Arrival:
        """Make the arrival of one event's document; *value* is the bytes it came in, if they hold nothing else."""
        if isinstance(document, dict) and document.keys() >= _SMS_GATEWAY and "type" not in document:
            reason = "no event but a call of the custom SMS gateway: give that another URL"
            # A digest of its names only: six digits are easily found from a digest of the whole.
            return undecoded(NAME, text(document.get("app_id")) or "", sorted(document), reason)
        whole = dump(document)
        kept = _native(strip([document])[0])  # in a list: it may itself be a text with a document in it
        rest = dump(kept)
        if value is None or rest != whole:
            value = rest
        if not isinstance(kept, dict) or text(kept.get("type")) is None:
            return Arrival(None, never_filtered(value), "no event: the field 'type' is missing, or is no text")
        try:
            found = event(kept, value)
        except Undecodable as refusal:
            return Arrival(None, never_filtered(value), str(refusal))
        notified_by = found.context.already_notified_by or self._habits.notified_by(found)
        if notified_by == found.context.already_notified_by:
            return Arrival(found, value)
        marked = {**kept, "id": found.id, "context": {**_dict(kept.get("context")), "already_notified_by": notified_by}}
        value = dump(marked)
        return Arrival(event(marked, value), value)


_OF_OTHERS = frozenset({"source", "specversion"})
"""Fields that Authgear's events do not have: they would name another system, or make it an envelope."""
_SMS_GATEWAY = frozenset({"to", "body"})
"""Fields of the call with which Authgear asks another service to send an SMS. It is signed like a webhook, and holds the code."""


def _native(document: Any) -> Any:
    """Remove the fields that would make `usher.systems.decode.decode` take it for another system's."""
    if not isinstance(document, dict) or not document.keys() & _OF_OTHERS:
        return document
    return {name: item for name, item in document.items() if name not in _OF_OTHERS}


def event(document: Mapping[str, Any], value: bytes) -> Event:
    """Make the Event of an Authgear document with a type; *value* is the bytes it came from."""
    raw_type: str = document["type"]
    given = document.get("payload")
    payload: dict[str, Any] = given if isinstance(given, dict) else {}
    context = context_of(document, basis="native")
    if OUR_CALLS.items() <= _dict(context.get("audit_context")).items():
        context.setdefault("already_notified_by", "Usher itself did this, by its own call of the Admin API")
    derived: dict[str, Any] = {
        "type": canonical_type(raw_type, payload),
        "source": NAME,
        "payload": payload,
        "context": context,
        "tenant": text(context.get("app_id")) or text(document.get("tenant")) or "",
    }
    if not isinstance(document.get("user"), dict):
        derived["user"] = _user(raw_type, payload, context)
    if "raw_type" not in document:
        derived["raw_type"] = raw_type
    return event_of(document, value, **derived)


def canonical_type(raw_type: str, payload: Mapping[str, Any]) -> str:
    """Return the name under which handlers know the event; *payload* decides for some."""
    if raw_type == RAW_TYPES["password.expired"]:
        return "password.expired" if payload.get("expired") is True else raw_type
    if raw_type == CREATE_AUTHENTICATOR:
        made = _dict(payload.get("authenticator"))
        first = made.get("kind") in (None, "primary")
        return "password.reset" if made.get("type") == "password" and first else raw_type
    return RENAMED_TYPES.get(raw_type, raw_type)


def _user(raw_type: str, payload: Mapping[str, Any], context: Mapping[str, Any]) -> Mapping[str, Any]:
    user = _dict(payload.get("user"))
    known = _dict(user.get("standard_attributes"))
    found = {field: text(known.get(claim)) for field, claim in _CLAIMS.items()}
    missing = [field for field, item in found.items() if item is None]
    for claims in _claims(raw_type, payload) if missing else ():
        for field in missing:
            found[field] = found[field] or text(claims.get(_CLAIMS[field]))
    return {
        "id": text(context.get("user_id")) or text(user.get("id")),
        **found,
        "name": text(known.get("name")) or text(known.get("given_name")),
        "locale": text(known.get("locale")),
        "disabled": _disabled(user),
    }


def _disabled(user: Mapping[str, Any]) -> bool | None:
    """Return whether the user can't log in: disabled for good or for a time, deactivated, or anonymized; None: it is not said."""
    flags = [user[name] for name in _OFF if isinstance(user.get(name), bool)]
    return any(flags) if flags else None


def _claims(raw_type: str, payload: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Go through the other places of addresses and user names: the user's present identities, then the given login id."""
    identities = payload.get("identities")
    candidates = list(identities) if isinstance(identities, list) else []
    if "new_identity" in payload:
        candidates.append(payload["new_identity"])
    if "identity" in payload and not raw_type.endswith(_LOST):
        candidates.append(payload["identity"])
    for identity in candidates:
        claims = _dict(_dict(identity).get("claims"))
        if claims:
            yield claims
            if _LOGIN_ID_VALUE in claims:
                yield _login_id(claims[_LOGIN_ID_VALUE], claims.get(_LOGIN_ID_TYPE))
    login_id = payload.get("login_id")
    if isinstance(login_id, dict):
        yield login_id
        yield _login_id(login_id.get("value"), login_id.get("type") or login_id.get("key"))
    elif login_id is not None:
        yield _login_id(login_id, None)


def _login_id(value: object, kind: object) -> Mapping[str, Any]:
    """Turn a login id into claims. If its kind is not given, an ``@`` makes it an address and a leading ``+`` a number."""
    login = text(value)
    if login is None:
        return {}
    if kind == "email" or (kind is None and "@" in login):
        return {"email": login}
    if kind == "phone" or (kind is None and login.startswith("+")):
        return {"phone_number": login}
    if kind == "username":
        return {"preferred_username": login}
    return {}


def _is_new(event: Event) -> bool:
    """Return whether the event is from the first minutes of its user."""
    created, now = text(_dict(event.payload.get("user")).get("created_at")), event.context.timestamp
    try:
        return created is not None and now is not None and now - datetime.fromisoformat(created).timestamp() < _CREATING
    except (ValueError, OverflowError):
        return False


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _NONE

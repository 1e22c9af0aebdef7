"""Authgear: its raw events are canonical as they are, but for a few names and for where the user's addresses lie.

Events reach us by webhook (the hooked types) or from the audit log (the admin's password operations); the shape is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from usher.event import Event, Undecodable
from usher.sources.canonical import context_of, event_of, text
from usher.sources.document import NotJson, dump, parse, strip, unwrap
from usher.sources.prefilter import never_filtered
from usher.sources.source import Arrival, check_secrets, signed_by_any

NAME = "authgear"
SIGNATURE = "x-authgear-body-signature"
"""The hex HMAC-SHA256 of the raw body, without a time in it."""

_MUTATION = "admin_api.mutation."
_EXPIRED = f"{_MUTATION}set_password_expired.executed"
_CANONICAL = {
    f"{_MUTATION}reset_password.executed": "password.reset",
    f"{_MUTATION}send_reset_password_message.executed": "password.reset_requested",
}
_LOGIN_ID = "https://authgear.com/claims/login_id/"
_LOST = (".removed", ".disconnected")
"""Ends of the types whose ``identity`` is what the user has just lost: its address may be another person's by now."""


class Authgear:
    """One app of Authgear, or several that share a signing secret: an event names its app itself."""

    name = NAME
    plain = True
    refusal = f"{SIGNATURE} is missing, or was not made from this body by a known secret"

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = check_secrets(secrets)

    def verified(self, headers: Mapping[str, str], body: bytes) -> bool:
        return signed_by_any(self._secrets, body, headers.get(SIGNATURE, ""))

    def arrivals(self, body: bytes, headers: Mapping[str, str], received: float) -> Sequence[Arrival]:  # noqa: ARG002
        """`Source.arrivals`. What can't be read is stored as it came: Authgear's events hold no credentials."""
        try:
            document = unwrap(parse(body))
        except NotJson:
            raise
        except Undecodable as refusal:
            return [Arrival(None, never_filtered(body), str(refusal))]
        return [of_document(document, body)]


def of_document(document: Any, value: bytes | None = None) -> Arrival:
    """The arrival of one event's document; *value* are the bytes it came in, where they hold nothing else."""
    kept = strip(document)
    if value is None or kept is not document:
        value = dump(kept)
    if not isinstance(kept, dict) or text(kept.get("type")) is None:
        return Arrival(None, never_filtered(value), "no event: the field 'type' is missing, or is no text")
    try:
        return Arrival(event(kept, value), value)
    except Undecodable as refusal:
        return Arrival(None, never_filtered(value), str(refusal))


def event(document: Mapping[str, Any], value: bytes) -> Event:
    """The Event of an Authgear document with a type; *value* is the bytes it came from."""
    raw_type: str = document["type"]
    given = document.get("payload")
    payload: dict[str, Any] = given if isinstance(given, dict) else {}
    context = context_of(document, basis="native")
    derived: dict[str, Any] = {
        "type": _canonical(raw_type, payload),
        "source": NAME,
        "payload": payload,
        "context": context,
        "tenant": text(context.get("app_id")) or text(document.get("tenant")) or "",
    }
    if not isinstance(document.get("user"), dict):
        derived["user"] = _user(raw_type, payload, context)
    return event_of({"raw_type": raw_type, **document}, value, **derived)


def _canonical(raw_type: str, payload: Mapping[str, Any]) -> str:
    if raw_type == _EXPIRED:
        return "password.expired" if payload.get("expired") is True else raw_type
    return _CANONICAL.get(raw_type, raw_type)


def _user(raw_type: str, payload: Mapping[str, Any], context: Mapping[str, Any]) -> Mapping[str, Any]:
    user = _dict(payload.get("user"))
    known = _dict(user.get("standard_attributes"))
    email, phone = text(known.get("email")), text(known.get("phone_number"))
    if email is None or phone is None:
        for claims in _claims(raw_type, payload):
            email = email or text(claims.get("email"))
            phone = phone or text(claims.get("phone_number"))
    return {
        "id": text(context.get("user_id")) or text(user.get("id")),
        "email": email,
        "phone": phone,
        "name": text(known.get("name")) or text(known.get("given_name")),
        "locale": text(known.get("locale")),
    }


def _claims(raw_type: str, payload: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Where else an address may be: the identities that the user has now, then the login id that was given."""
    identities = payload.get("identities")
    candidates = list(identities) if isinstance(identities, list) else []
    candidates.append(payload.get("new_identity"))
    if not raw_type.endswith(_LOST):
        candidates.append(payload.get("identity"))
    for identity in candidates:
        claims = _dict(_dict(identity).get("claims"))
        if claims:
            yield claims
            yield _login_id(claims.get(f"{_LOGIN_ID}value"), claims.get(f"{_LOGIN_ID}type"))
    login_id = payload.get("login_id")
    if isinstance(login_id, dict):
        yield login_id
        yield _login_id(login_id.get("value"), login_id.get("type") or login_id.get("key"))
    else:
        yield _login_id(login_id, None)


def _login_id(value: object, kind: object) -> Mapping[str, Any]:
    """A login id as claims. Where its kind is not told, an ``@`` makes it an address and a leading ``+`` a number."""
    login = text(value)
    if login is None:
        return {}
    if kind == "email" or (kind is None and "@" in login):
        return {"email": login}
    if kind == "phone" or (kind is None and login.startswith("+")):
        return {"phone_number": login}
    return {}


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

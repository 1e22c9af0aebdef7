"""The source of GenAuth and Authing. Their webhooks carry no signature, id, time or actor. Hides what replaces each.

A body is ``{eventName, data}``, as JSON or as a form; a login comes without that envelope, and a test from the console
without a name.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import phonenumbers

from usher.event import UNKNOWN, Event, Undecodable
from usher.systems.canonical import is_time, text
from usher.systems.document import NotJson, dump, parse, unwrap
from usher.systems.genauth.event_types import RENAMED_TYPES
from usher.systems.genauth.forms import form_document
from usher.systems.source import Arrival, arrival, check_secrets, derive, equal_to_any, undecoded
from usher.systems.strip import strip

NAME = "genauth"
SECRET_HEADERS = ("x-authing-webhook-secret", "x-authing-token", "x-genauth-token")
"""All three are documented, and which one a pool sends depends on its age and brand."""
PASSWORD_CHANGED = "user:password-changed"  # noqa: S105 - an event's name
"""A password was changed, or an attempt failed: the event says neither who made it nor whether it worked."""

_POOL_HEADERS = ("x-authing-userpool-id", "x-genauth-userpool-id")
_CREATED = frozenset(("user:created", "register"))
_RESET_FLAGS = ("resetPasswordOnNextLogin", "resetPasswordOnFirstLogin")
_OWN_TIME = {"user:updated": "updatedAt", "login": "lastLogin"}
"""The field of the user that holds the event's time. In other events ``updatedAt`` may be older than the event."""
_OFF = frozenset(("suspended", "deactivated", "resigned", "archived"))
_ACTORS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("user:blocked", "user:unblocked"), ("admin_api", "only administrators do this")),
    **dict.fromkeys(("login", "mfa:verified", "refresh-token"), ("user", "users do this themselves")),
    "user:password-update-remind": ("system", "GenAuth reminds by itself"),
}
_SOURCE_TYPES = {
    "adminCreated": "admin_api",
    "excel": "admin_api",
    "register": "user",
    "sync": "system",
    "syncTask": "system",
}
_SECRET_FIELDS = frozenset(("oauth", "secretInfo"))
"""Fields that hold tokens of other systems, under names of those systems."""
_COUNTRY_CODE = re.compile(r"[1-9][0-9]{0,2}")
_BUCKETED = re.compile(r"([0-9a-f]{40})\.(\d+)")


class GenAuthSource:
    """One user pool.

    Args:
        secrets: any of them proves a webhook.
        tenant: the pool's id; empty: as each webhook says.
        strict: whether a webhook that names another pool is of that one; else all are of *tenant*, which may be a guess.
        country_code: of phone numbers that come without one.
        repeat_window: seconds in which the same body again is the same event, if nothing in the body decides.
    """

    name = NAME
    plain = False
    signs_body = False
    refusal = f"none of {', '.join(SECRET_HEADERS)} holds a known secret"

    def __init__(
        self,
        secrets: Sequence[str] = (),
        *,
        tenant: str = "",
        strict: bool = False,
        country_code: str = "86",
        repeat_window: float = 120.0,
    ) -> None:
        self._secrets = check_secrets(secrets)
        self._strict = strict
        self.tenant, self._country_code, self._window = tenant, country_code, repeat_window

    def verified(self, headers: Mapping[str, str], body: bytes) -> bool:  # noqa: ARG002 - nothing is signed
        matches = [equal_to_any(self._secrets, headers.get(name, "")) for name in SECRET_HEADERS]
        return any(matches)  # all were compared: the time reveals nothing

    def arrivals(self, body: bytes, headers: Mapping[str, str], received: float) -> Sequence[Arrival]:
        """`Source.arrivals`. A test call has none; a body that can't be read leaves a stub."""
        try:
            document = _document(body, headers)
            call = _call(document)
        except NotJson:
            raise
        except Undecodable as refusal:
            return [undecoded(NAME, self._pool(headers, {}), body, str(refusal))]
        return [] if call is None else [arrival(self._event(call, headers, received))]

    def _event(self, call: _Call, headers: Mapping[str, str], received: float) -> Event:
        actor, basis = _origin(call)
        return derive(
            NAME,
            call.document,
            id=self._id(call, received),
            type=_type(call),
            raw_type=call.name,
            tenant=self._pool(headers, call.data, call.person),
            triggered_by=actor,
            basis=basis,
            timestamp=iso_time(call.person.get("createdAt" if call.name in _CREATED else _OWN_TIME.get(call.name, ""))),
            user=user_fields(call.person, self._country_code),
        )

    def _id(self, call: _Call, received: float) -> str:
        """Make the event's id. A user is created once; an event with its own time is distinguished by that time.

        Any other event is the same only within its bucket of time: `Repeats` joins calls that a bucket's edge has separated.
        """
        if call.name in _CREATED and (user := user_id_of(call.person)) is not None:
            return created_id(user)
        about = hashlib.sha1(dump(call.document), usedforsecurity=False).hexdigest()
        timed = text(call.person.get(_OWN_TIME.get(call.name, ""))) is not None
        return about if timed else f"{about}.{int(received // self._window)}"

    def _pool(self, headers: Mapping[str, str], *parts: Mapping[str, Any]) -> str:
        given = [headers.get(name) for name in _POOL_HEADERS] + [text(part.get("userPoolId")) for part in parts]
        named = [pool for pool in given if pool]
        if self.tenant:
            pool = next((pool for pool in named if self._strict and pool != self.tenant), self.tenant)
        else:
            pool = named[0] if named else ""
        return pool.encode("utf-8", "replace").decode()  # a header may be no text


class _Call(NamedTuple):
    """The content of a webhook: *document* is all of it, cleaned; *person* is the user that it is about, as far as it says."""

    name: str
    data: Mapping[str, Any]
    person: Mapping[str, Any]
    document: Mapping[str, Any]


class Repeats:
    """A memory of calls. It recognises repeats of a call that lie on both sides of the edge between two buckets of time.

    Calls within *window* seconds of the first one are repeats; later ones are new, since their bucket is another. It
    knows what this process has seen: across a restart the buckets alone decide.
    """

    def __init__(self, window: float, most: int = 10_000) -> None:
        self._window, self._most = window, most
        self._first: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def joined(self, event: Event, received: float) -> Event:
        """Give *event* the id of the call that it repeats, if it repeats one. *received* is in Unix seconds."""
        if (match := _BUCKETED.fullmatch(event.id)) is None:
            return event
        about = f"{event.tenant}/{match[1]}"
        at, known = self._first.get(about, (float("-inf"), ""))
        if abs(received - at) < self._window:
            return replace(event, id=known)
        self._first.pop(about, None)
        self._first[about] = (received, event.id)
        while len(self._first) > self._most:
            self._first.popitem(last=False)
        return event


def created_id(user: str) -> str:
    """Return the id of the event that *user* was created; webhook and audit log give it the same."""
    return f"created-{user}"


def user_id_of(person: Mapping[str, Any]) -> str | None:
    """Read the id of a user, in the older shape or the newer one."""
    return text(person.get("userId")) or text(person.get("id")) or text(person.get("_id"))


def user_fields(person: Mapping[str, Any], country_code: str) -> dict[str, Any]:
    """Read the fields of `usher.event.User` from a user in either shape."""
    return {
        "id": user_id_of(person),
        "username": text(person.get("username")),
        "email": text(person.get("email")),
        "phone": e164(text(person.get("phone")), text(person.get("phoneCountryCode")) or country_code),
        "name": text(person.get("name")) or text(person.get("nickname")) or text(person.get("givenName")),
        "locale": text(person.get("locale")),
        "disabled": _disabled(person),
    }


def _disabled(person: Mapping[str, Any]) -> bool | None:
    """Return whether a user can't log in, by the flags (as texts in a form) or ``status``; None: it is not said."""
    flags, status = [person.get(name) for name in ("blocked", "isDeleted")], text(person.get("status"))
    if any(flag in (True, "true") for flag in flags) or (status or "").lower() in _OFF:
        return True
    return False if status or any(flag in (False, "false") for flag in flags) else None


def e164(phone: str | None, country_code: str) -> str | None:
    """Write *phone* with its country code, without the prefix for calls inside the country; unchanged if it can't be parsed."""
    digits = country_code.strip().removeprefix("+")
    if phone is None or phone.strip().startswith("+") or not _COUNTRY_CODE.fullmatch(digits):
        return phone
    region = phonenumbers.region_code_for_country_code(int(digits))
    try:
        number = phonenumbers.parse(phone, None if region == "ZZ" else region)
    except phonenumbers.NumberParseException:
        return phone
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def iso_time(value: object) -> float | None:
    """Read an ISO 8601 time with its zone, in Unix seconds; None: it is no such time."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        # By way of UTC: a time outside of its calendar there could not be an event's time.
        at = None if moment is None or moment.tzinfo is None else moment.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None
    return at if is_time(at) else None


def who_made(source_type: object, register_source: object) -> tuple[str, str]:
    """Find out who created a user, and the rule that says so: ``userSourceType``, else ``registerSource``."""
    kind = text(source_type)
    if kind is not None and kind in _SOURCE_TYPES:
        return _SOURCE_TYPES[kind], f"userSourceType {kind}"
    sources = register_source if isinstance(register_source, list) else [register_source]
    given = [source for source in map(text, sources) if source is not None]
    for prefixes, actor in ((("import:",), "admin_api"), (("basic:", "social:"), "user")):
        for source in given:
            if source.startswith(prefixes):
                return actor, f"registerSource {source}"
    return UNKNOWN, "neither userSourceType nor registerSource says it"


def _document(body: bytes, headers: Mapping[str, str]) -> Any:
    """Read the body's document, without credentials.

    Raises:
        NotJson, Undecodable
    """
    try:
        document = unwrap(parse(body))
    except NotJson:
        kind = headers.get("content-type", "").lower()
        if not kind.startswith("application/x-www-form-urlencoded") and not body.startswith(b"eventName="):
            raise
        document = form_document(body)
        if isinstance(document.get("data"), str):
            document["data"] = parse(document["data"].encode())
    return strip(document, _SECRET_FIELDS)


def _call(document: Any) -> _Call | None:
    """Read the call in *document*; None: it is a test.

    Raises:
        Undecodable: it is no call that is known.
    """
    if not isinstance(document, dict):
        raise Undecodable(f"no event: a JSON object was expected, this is a {type(document).__name__}")
    name, given = text(document.get("eventName")), document.get("data")
    if name is None and "userPoolId" in document and user_id_of(document) is not None:
        return _Call("login", document, document, document)
    if name == "test" or (name is None and document.keys() == {"description"}):
        return None
    if name is None:
        raise Undecodable("no event: the field 'eventName' is missing, or is no text")
    data: Mapping[str, Any] = given if isinstance(given, dict) else {}
    return _Call(name, data, _person(name, data), document)


def _person(name: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    users = data.get("users")
    sole = users[0] if isinstance(users, list) and len(users) == 1 else None
    for user in (data.get("user"), sole):
        if isinstance(user, dict):
            return user
    if isinstance(sole, str):
        return {"userId": sole}
    about_a_user = name in _CREATED or name == "login" or name.startswith("user:")
    return data if about_a_user else {"userId": data.get("userId")}


def _type(call: _Call) -> str:
    updates = call.data.get("updates")
    flagged = isinstance(updates, dict) and any(updates.get(flag) in (True, "true") for flag in _RESET_FLAGS)
    return "password.expired" if call.name == "user:updated" and flagged else RENAMED_TYPES.get(call.name, call.name)


def _origin(call: _Call) -> tuple[str, str]:
    if call.name in _CREATED:
        return who_made(call.person.get("userSourceType"), call.person.get("registerSource"))
    actor, why = _ACTORS.get(call.name, (UNKNOWN, "a webhook of this name does not say who did it"))
    return actor, f"{call.name}: {why}"

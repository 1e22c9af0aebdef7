"""The source of Keycloak: its admin events and user events. Hides the three shapes in which they come.

p2-inc's webhook wraps them (``type`` is ``admin.…`` or ``access.…``; other types are custom events), Kafka listeners write Keycloak's
own objects, and so does the admin API, which leaves out the realm's name. The ``resourcePath`` of an admin event names the user,
whatever its ``resourceType`` says; its ``authDetails`` name the administrator. The same event has the same id in all three.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from usher.event import UNKNOWN, Event, Undecodable
from usher.systems.canonical import is_time, text
from usher.systems.document import NotJson, dump
from usher.systems.keycloak.users import (
    LOCALE_ATTRIBUTE,
    PHONE_ATTRIBUTES,
    enabled,
    representation_in,
    sets_password,
    subject_of,
    user_fields,
)
from usher.systems.source import Arrival, arrival, check_secrets, derive, document_of, signed_by_any, undecoded

NAME = "keycloak"
SIGNATURE = "x-keycloak-signature"
"""The hex HMAC-SHA256 of the raw body."""
OUR_MARK: Mapping[str, str] = {"self": "urn:usher"}
"""The mark in our own updates of a user: a field that Keycloak ignores, and keeps in the admin event."""
REQUESTED = "password.reset_requested"
"""The type that can't carry our mark, since Keycloak keeps nothing of the call: it is recognised by our account."""
RequiredAction = Literal["any", "alone"]

_UPDATE_PASSWORD = "UPDATE_PASSWORD"  # noqa: S105 - the name of a required action
_ACTIONS = {
    "reset-password": "password.reset",
    "execute-actions-email": REQUESTED,
    "reset-password-email": REQUESTED,
}
_USER_EVENTS = {
    "REGISTER": "user.created",
    "UPDATE_PASSWORD": "password.changed",
    "DELETE_ACCOUNT": "user.deleted",
    "USER_DISABLED_BY_PERMANENT_LOCKOUT": "user.disabled",
}
_BY_KEYCLOAK = "USER_DISABLED_BY_"
_PREFIXES = ("admin.", "access.")
_FAILED = "_ERROR"
_OURS = "Usher itself did this, by its own call of the admin API"
_MOST = 1_000
"""Events in a body: everything else waits while a body is read."""


class KeycloakSource:
    """One realm; without its name, several that share a webhook's secret or a topic.

    Args:
        secrets: the keys that webhooks are signed with; one of them is enough.
        realm: the realm's name, also of events that don't say it; empty: as each event says.
        phone_attributes: the user's attributes that may hold a phone number, best first.
        locale_attribute: the one that holds the language.
        required_action: ``any`` update that has the required action UPDATE_PASSWORD in it expires the password, or only one
            that says it ``alone``: the admin console sends all fields whenever a user is saved, also where it was set before.
    """

    name = NAME
    plain = False
    signs_body = True
    refusal = f"{SIGNATURE} is missing, or was not made from this body by a known secret"

    def __init__(
        self,
        secrets: Sequence[str] = (),
        *,
        realm: str | None = None,
        phone_attributes: Sequence[str] = PHONE_ATTRIBUTES,
        locale_attribute: str = LOCALE_ATTRIBUTE,
        required_action: RequiredAction = "any",
    ) -> None:
        self._secrets = check_secrets(secrets)
        self._alone = required_action == "alone"
        self.tenant = realm or ""
        self._phone_attributes, self._locale_attribute = phone_attributes, locale_attribute
        self.own_accounts: set[str] = set()
        """Ids of the users that Usher acts as, as far as they are known so far."""

    def verified(self, headers: Mapping[str, str], body: bytes) -> bool:
        return signed_by_any(self._secrets, body, headers.get(SIGNATURE, ""))

    def arrivals(self, body: bytes, headers: Mapping[str, str], received: float) -> Sequence[Arrival]:  # noqa: ARG002
        """`Source.arrivals`. An array is a batch of events."""
        try:
            document = document_of(body)
        except NotJson:
            raise
        except Undecodable as refusal:
            return [undecoded(NAME, self.tenant, body, str(refusal))]
        if not isinstance(document, list):
            return [self.arrival(document)]
        if len(document) > _MOST:
            reason = f"a body holds at most {_MOST} events, this one holds {len(document)}"
            return [undecoded(NAME, self.tenant, body, reason)]
        return [self.arrival(item) for item in document]

    def arrival(self, document: Any) -> Arrival:
        """Make the arrival of one event."""
        try:
            return arrival(self._event(document))
        except Undecodable as refusal:
            return undecoded(NAME, self.tenant, document, str(refusal))

    def recognized(self, given: Arrival) -> Arrival:
        """Mark *given* as ours if it was made by one of `own_accounts`, which may have become known only now."""
        event = given.event
        if event is None or event.type != REQUESTED or event.context.already_notified_by:
            return given
        if text(_dict(event.payload.get("authDetails")).get("userId")) not in self.own_accounts:
            return given
        context = replace(event.context, already_notified_by=_OURS)
        return arrival(replace(event, context=context))

    def user_fields(self, user: Mapping[str, Any]) -> dict[str, Any]:
        """Read the fields of `usher.event.User` from a user as Keycloak writes one, without the id."""
        return user_fields(user, self._phone_attributes, self._locale_attribute)

    def _event(self, document: Any) -> Event:
        if not isinstance(document, dict):
            raise Undecodable(f"no event: a JSON object was expected, this is a {type(document).__name__}")
        kind = text(document.get("type"))
        if kind is not None and _is_custom(kind, document):
            return self._custom_event(document, kind)
        if text(document.get("operationType")) and text(document.get("resourcePath")):
            return self._admin_event(document)
        if kind is not None:
            return self._user_event(document, kind.removeprefix("access."))
        raise Undecodable("no event: neither an admin event (operationType, resourcePath) nor a user event (type)")

    def _admin_event(self, document: Mapping[str, Any]) -> Event:
        """Make the Event of an admin event. Only calls of the admin API leave one: by an admin, or a program with an admin's rights."""
        operation, path = document["operationType"].upper(), document["resourcePath"]
        resource = text(document.get("resourceType")) or text(document.get("resourceTypeAsString")) or ""
        user_id, action = subject_of(path)
        itself = user_id is not None and not action
        raw_type, failed = f"admin.{resource}-{operation}", bool(document.get("error"))
        given = representation_in(document) if itself else {}
        user = {name: value for name, value in given.items() if name != "credentials"}
        subject = self.user_fields(user)
        subject["username"] = subject["username"] or _username_in_details(document, user_id)
        canonical = None if user_id is None or failed else self._canonical(operation, action, given)
        named = f"admin.USER-{operation}" if itself else raw_type
        actor_id = text(_dict(document.get("authDetails")).get("userId"))
        ours = OUR_MARK.items() <= user.items() or (canonical == REQUESTED and actor_id in self.own_accounts)
        return derive(
            NAME,
            _kept(document, user),
            id=_id(document, raw_type, path, actor_id),
            type=canonical or (named + _FAILED if failed else named),
            raw_type=raw_type,
            tenant=self._tenant(document),
            triggered_by=UNKNOWN if failed else "admin_api",
            basis="failed: nothing has changed" if failed else "admin event: written for calls of the admin API only",
            timestamp=_moment(document.get("time")),
            user={"id": user_id, **subject},
            context={"already_notified_by": _OURS} if ours else {},
        )

    def _canonical(self, operation: str, action: Sequence[str], user: Mapping[str, Any]) -> str | None:
        """Return the canonical type of an admin's operation on a user, if it has one."""
        if action:
            return _ACTIONS.get("/".join(action)) if operation in ("ACTION", "UPDATE") else None
        if operation == "UPDATE":
            return self.change_of(user)
        return {"CREATE": "user.created", "DELETE": "user.deleted"}.get(operation)

    def change_of(self, user: Mapping[str, Any]) -> str | None:
        """Return the canonical type of an update; *user* is what was written. The admin console writes all fields with each change."""
        if enabled(user) is False:
            return "user.disabled"
        if sets_password(user):
            return "password.reset"
        written, required = user.keys() - OUR_MARK.keys(), user.get("requiredActions")
        if isinstance(required, list) and _UPDATE_PASSWORD in required:
            return None if self._alone and written != {"requiredActions"} else "password.expired"
        return "user.reenabled" if enabled(user) and written == {"enabled"} else None

    def _custom_event(self, document: Mapping[str, Any], kind: str) -> Event:
        """Make the Event of what some program has published through p2-inc's extension. Its content is that program's."""
        return derive(
            NAME,
            _kept(document, {}),
            id=_id(document, kind, text(document.get("userId"))),
            type=kind,
            raw_type=kind,
            tenant=self._tenant(document),
            triggered_by=UNKNOWN,
            basis="custom event: a program has published it, and nothing says who did what",
            timestamp=_moment(document.get("time")),
            user={"id": text(document.get("userId"))},
        )

    def _user_event(self, document: Mapping[str, Any], kind: str) -> Event:
        """Make the Event of what users do themselves, at Keycloak's pages or through an application."""
        failed = bool(document.get("error")) or kind.endswith(_FAILED)
        actor = _dict(document.get("authDetails"))
        user_id = text(document.get("userId")) or text(actor.get("userId"))
        kept = _kept(document, {})
        details = kept.get("details", {})
        names = {
            "username": details.get("username") if kind == "REGISTER" else _username_of_actor(actor, user_id),
            "firstName": details.get("first_name"),
            "lastName": details.get("last_name"),
        }
        by, basis = "user", "user event: the user did it"
        if kind.startswith(_BY_KEYCLOAK):
            by, basis = "system", "user event: Keycloak itself did it, after too many failed logins"
        if failed or user_id is None:
            by, basis = UNKNOWN, "failed: nothing has changed" if failed else "user event without a user"
        raw_type = f"access.{kind}"
        return derive(
            NAME,
            kept,
            id=_id(document, raw_type, text(document.get("clientId")) or actor.get("clientId"), user_id),
            type=raw_type if failed else _USER_EVENTS.get(kind, raw_type),
            raw_type=raw_type,
            tenant=self._tenant(document),
            triggered_by=by,
            basis=basis,
            timestamp=_moment(document.get("time")),
            user={"id": user_id, **self.user_fields({"email": details.get("email"), **names})},
        )

    def _tenant(self, document: Mapping[str, Any]) -> str:
        return text(document.get("realmName")) or self.tenant or text(document.get("realmId")) or ""


def is_about_a_user(document: Mapping[str, Any]) -> bool:
    """Return whether an admin event is about a user, or what Keycloak counts as one's own. Groups and roles of a user do not count."""
    user_id, action = subject_of(text(document.get("resourcePath")) or "")
    own = not action or "/".join(action) in _ACTIONS or document.get("resourceType") == "USER"
    return user_id is not None and own


def _is_custom(kind: str, document: Mapping[str, Any]) -> bool:
    """Return whether a type is none of Keycloak's: those have no dots, and a prefix from p2-inc's extension, which writes ``uid``."""
    return not kind.startswith(_PREFIXES) and ("." in kind or "uid" in document)


def _kept(document: Mapping[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    """Choose what becomes the payload. Only a user's representation is kept: those of clients, realms and providers hold secrets."""
    kept = {name: value for name, value in document.items() if name not in ("representation", "details")}
    if user:
        kept["representation"] = user
    if details := _dict(document.get("details")):
        kept["details"] = {name: _without_query(value) for name, value in details.items() if isinstance(value, str)}
    return kept


def _username_in_details(document: Mapping[str, Any], user_id: str | None) -> str | None:
    """Read the user name that p2-inc's webhook adds to an admin event about *user_id*."""
    details = _dict(document.get("details"))
    return text(details.get("username")) if user_id is not None and details.get("userId") == user_id else None


def _username_of_actor(actor: Mapping[str, Any], user_id: str | None) -> str | None:
    """Read the user name in a user event's ``authDetails``. The one in its ``details`` is what was typed: it may be an address."""
    return text(actor.get("username")) if user_id is not None and actor.get("userId") == user_id else None


def _without_query(value: str) -> str:
    """Cut off the part of a link that may make it work."""
    return re.split(r"[?#]", value, maxsplit=1)[0] if "://" in value else value


def _id(document: Mapping[str, Any], *what: Any) -> str:
    """Return the event's own id; if a version of Keycloak or an extension leaves it out, make one that no other event can have."""
    realm = text(document.get("realmName")) or text(document.get("realmId"))
    return (
        text(document.get("id"))
        or hashlib.sha256(dump([realm, document.get("id"), document.get("time"), *what])).hexdigest()
    )


def _moment(milliseconds: Any) -> float | None:
    """Turn Keycloak's milliseconds into Unix seconds."""
    given = type(milliseconds) in (int, float) and is_time(
        milliseconds // 1000
    )  # an integer may be too large for a float
    return milliseconds / 1000 if given else None


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

"""The rules that decide who triggered an event of Auth0, and which of its two reports of a new user counts.

Auth0 itself does not say who triggered an event. Hides the order in which a team's settings apply. Every ruling says which
rule decided, for `usher explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from usher.event import UNKNOWN
from usher.systems.auth0.logs import Auth0LogEntry
from usher.systems.auth0.values import dict_in
from usher.systems.canonical import text

_BY_USERS = frozenset(
    ("scp", "fcp", "scpr", "fcpr", "sce", "fce", "scpn", "fcpn", "scu", "fcu", "sv", "fv", "svr", "fvr")
)
"""Codes of log entries about what only users do themselves, unless the entry names an administrator's application."""


class Auth0Ruling(NamedTuple):
    """Who triggered it, and the rule that decided, in words for an operator."""

    triggered_by: str
    basis: str


OWN = Auth0Ruling("system", "client: it is Usher's own application")
USER_CLIENT = Auth0Ruling("user", "client: the application is in USHER_AUTH0__USER_CLIENTS")
ADMIN_CLIENT = Auth0Ruling("admin_api", "client: the application is in USHER_AUTH0__ADMIN_CLIENTS")
OTHER_CLIENT = Auth0Ruling("user", "client: the application is not in USHER_AUTH0__ADMIN_CLIENTS")
MARKER = Auth0Ruling("admin_api", "app_metadata: it has one of USHER_AUTH0__ADMIN_MARKERS")
DASHBOARD = Auth0Ruling("admin_api", "channel: it was done in the dashboard")
MANAGEMENT_API = Auth0Ruling("admin_api", "sapi: the Management API was called, by none of USHER_AUTH0__USER_CLIENTS")
SELF_SERVICE = Auth0Ruling("user", "log type: users do this themselves, and no administrator's application is named")
TEST = Auth0Ruling(UNKNOWN, "a0purpose: a test event of the event stream")
UNDECIDED = Auth0Ruling(UNKNOWN, "undecided: neither USHER_AUTH0__ADMIN_CLIENTS nor USHER_AUTH0__ADMIN_MARKERS says it")
LOG_UNDECIDED = Auth0Ruling(UNKNOWN, "undecided: a log entry of this type does not say it")


@dataclass(frozen=True, slots=True)
class Auth0Rules:
    """What a team says about its tenant.

    Args:
        created_from: which report counts as ``user.created`` and ``user.deleted``: the event stream's event, or the log entry of
            the API call.
        admin_clients: ids of the applications through which only administrators act.
        user_clients: ids of those that call the Management API for what users do themselves.
        admin_markers: ``key`` or ``key=value`` in ``app_metadata`` of users that a back office makes.
        own_client: Usher's own application: no message is sent about what it does.
        reset_flag: the key in ``app_metadata`` that requires a new password.
    """

    created_from: Literal["events", "logs"] = "events"
    admin_clients: frozenset[str] = frozenset()
    user_clients: frozenset[str] = frozenset()
    admin_markers: tuple[str, ...] = ()
    own_client: str | None = None
    reset_flag: str = "needsPasswordReset"

    def of_event(self, raw_type: str, document: Mapping[str, Any]) -> Auth0Ruling:
        """Decide about an event of an event stream."""
        data = dict_in(document, "data")
        if document.get("a0purpose") == "test":
            return TEST
        client = text(dict_in(dict_in(data, "context"), "client").get("id"))
        if (ruling := self._of_client(client)) is not None:
            return ruling
        # The marker stays with the user for ever: it says who made the account, and not who did what came later.
        if raw_type == "user.created" and self._marked(dict_in(dict_in(data, "object"), "app_metadata")):
            return MARKER
        return OTHER_CLIENT if client and self.admin_clients else UNDECIDED

    def of_log(self, entry: Auth0LogEntry) -> Auth0Ruling:
        """Decide about a log entry."""
        if (ruling := self._of_client(entry.client)) is not None:
            return ruling
        if entry.code == "sapi":
            return MANAGEMENT_API
        if entry.by_dashboard:
            return DASHBOARD
        if entry.code in _BY_USERS:
            return SELF_SERVICE
        return OTHER_CLIENT if entry.code == "ss" and entry.client and self.admin_clients else LOG_UNDECIDED

    def type_of_log(self, entry: Auth0LogEntry, triggered_by: str) -> str:
        """Return the canonical type of a log entry, or its code if it has none."""
        if entry.code == "scpr":
            return "password.reset_requested"
        if entry.code == "scp":  # an administrator's change is reported by its `sapi`, as a reset
            return "password.changed" if triggered_by == "user" else entry.code
        call = entry.user_call
        if call is None or triggered_by == "system":  # our own flag must not come back as an administrator's
            return entry.code
        if call != "update":
            return f"user.{call}d" if self.created_from == "logs" else entry.code
        return self._change(entry.asked) or entry.code

    def _change(self, asked: Mapping[str, Any]) -> str | None:
        """Return the canonical type of an update of a user. A program may write ``blocked: false`` beside everything else it writes."""
        if asked.get("blocked") is True:
            return "user.disabled"
        if "password" in asked:
            return "password.reset"
        if dict_in(asked, "app_metadata").get(self.reset_flag) is True:
            return "password.expired"
        return "user.reenabled" if asked == {"blocked": False} else None

    def _of_client(self, client: str | None) -> Auth0Ruling | None:
        if client is None:
            return None
        if client == self.own_client:
            return OWN
        if client in self.user_clients:
            return USER_CLIENT
        return ADMIN_CLIENT if client in self.admin_clients else None

    def _marked(self, app_metadata: Mapping[str, Any]) -> bool:
        for marker in self.admin_markers:
            key, compared, wanted = marker.partition("=")
            value = app_metadata.get(key)
            if (isinstance(value, str) and value == wanted) if compared else bool(value):
                return True
        return False

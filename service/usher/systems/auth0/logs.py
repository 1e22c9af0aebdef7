"""A log entry of Auth0: which user it is about, and what of it may be kept. Hides where each type of entry has its facts.

Entries hold live links (``resetUrl``, tickets, invitations). Entries of the Management API hold all that the call
configured: secrets, keys, our own webhook token. Of these calls only what is about a user is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote

from usher.redact.credentials import names_credential
from usher.systems.auth0.values import dict_in, unmasked, user_of
from usher.systems.canonical import text

_DASHBOARD = "https://manage.auth0.com"
_USERS = ["api", "v2", "users"]
_QUERY = re.compile(r"[?#]")
_WORD = re.compile(r"\S+")


UserCall = Literal["create", "update", "delete"]
_USER_CALLS: Mapping[tuple[str, int], UserCall] = {
    ("post", 0): "create",
    ("patch", 1): "update",
    ("delete", 1): "delete",
}
"""The calls on users, by their method and by how much follows the path."""


class Auth0LogEntry:
    """One entry; *data* is the entry itself, without the stream's envelope."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        self._details = dict_in(data, "details")
        self._request = dict_in(self._details, "request")

    @property
    def code(self) -> str:
        """The type, as in ``scp``."""
        return text(self._data.get("type")) or ""

    @property
    def id(self) -> str | None:
        return text(self._data.get("log_id")) or text(self._data.get("_id"))

    @property
    def client(self) -> str | None:
        """The id of the application."""
        return text(self._data.get("client_id"))

    @property
    def by_dashboard(self) -> bool:
        return (text(self._request.get("channel")) or "").rstrip("/") == _DASHBOARD

    @property
    def user_call(self) -> UserCall | None:
        """The call of the Management API on a user that it reports; None: it reports no such call."""
        method, path = (text(self._request.get("method")) or "").lower(), self._path()
        if self.code != "sapi" or path is None:
            return None
        return _USER_CALLS.get((method, len(path)))

    @property
    def asked(self) -> Mapping[str, Any]:
        """The body of the call."""
        return dict_in(self._request, "body")

    def user(self) -> Mapping[str, Any]:
        """Read the fields of `usher.event.User`. Of a call this is its subject: the entry's ``user_id`` is the caller."""
        if self.code == "sapi":
            answered = dict_in(dict_in(self._details, "response"), "body")
            found = {**user_of(self.asked), **_given(user_of(answered))} if self.user_call else {}
            return {**found, "id": unquote(path[0]) if (path := self._path()) else found.get("id")}
        body, query = dict_in(self._details, "body"), dict_in(self._details, "query")
        login = text(self._data.get("user_name"))
        emails = (login, self._details.get("email"), body.get("email"), query.get("email"))
        phones = (login, body.get("phone_number"))
        ids = (self._data.get("user_id"), body.get("user_id"), query.get("user_id"))
        return {
            "id": next(filter(None, map(text, ids)), None),
            "username": unmasked(body.get("username")),
            "email": next((item for item in map(unmasked, emails) if item and "@" in item), None),
            "phone": next((item for item in map(unmasked, phones) if item and item.startswith("+")), None),
        }

    def harmless(self) -> dict[str, Any]:
        """Remove from the entry what would give its reader access to something; `document.strip` removes the rest."""
        kept = dict(self._data)
        if self._request and self.user_call is None:
            details = {name: item for name, item in self._details.items() if name not in {"request", "response"}}
            details["request"] = {name: item for name, item in self._request.items() if name != "body"}
            response = dict_in(self._details, "response")
            details["response"] = {name: item for name, item in response.items() if name != "body"}
            kept["details"] = details
        cleaned: dict[str, Any] = _cleaned(kept)
        return cleaned

    def _path(self) -> Sequence[str] | None:
        """Return what follows ``/api/v2/users`` in the path, an id or nothing; None: it is another path. Empty parts count for nothing."""
        parts = [part for part in (text(self._request.get("path")) or "").split("/") if part]
        return parts[3:] if parts[:3] == _USERS and len(parts) <= 4 else None


def _given(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _cleaned(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            name: _cleaned(item)
            for name, item in node.items()
            if item is None or isinstance(item, bool) or not names_credential(name, "auth0")
        }
    if isinstance(node, list):
        return [_cleaned(item) for item in node]
    return _WORD.sub(_without_query, node) if isinstance(node, str) and "://" in node else node


def _without_query(word: re.Match[str]) -> str:
    """Cut off what follows the path of a URL: that is where tickets and tokens are."""
    scheme, separator, rest = word[0].partition("://")
    return scheme + separator + _QUERY.split(rest, maxsplit=1)[0] if separator else word[0]

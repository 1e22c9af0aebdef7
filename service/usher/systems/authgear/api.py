"""The client of Authgear's Admin API. Hides GraphQL, the token that we sign ourselves, and Authgear's ids and errors.

Our calls appear in Authgear's audit log like an administrator's. So the token marks them as ours, and their events carry the
mark too: no message is sent about what Usher itself did.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from usher.event import Event, User
from usher.http import Answer
from usher.outcome import Hold, NoAddress, Reject, Retry, Skip
from usher.system import PasswordLink
from usher.systems.api import ApiClient, BaseApi, Token, no_user
from usher.systems.authgear.source import OUR_CALLS
from usher.systems.canonical import read_user

PATH = "/_api/admin/graphql"

_TOKEN_LIFE = 300
"""Seconds, as in Authgear's own examples."""
_TOKEN_AGE = 30
"""Seconds by which a new token is dated back: a server whose clock is a little behind ours would refuse it."""
_REFUSED = 60.0
"""Seconds until a call is tried again that an operator has to mend."""
_NAME = re.compile(r"[A-Za-z]{1,64}")
_GONE = {"UserNotFound", "NotFound"}
_PASSING = {"InternalError", "UnexpectedError", "ServiceUnavailable", "TooManyRequest", "RateLimited", "DataRace"}
_REFUSALS = {"Forbidden", "Unauthorized"}
_NO_QUERY = "InvalidQuery"
"""Our name for an error without one: the server does not understand the query, or a name in it."""
_NEWER = frozenset(("ADMIN_API_MUTATION_CREATE_AUTHENTICATOR_EXECUTED",))
"""The activity types that are read by default and that older servers do not know."""
_NO_PASSWORD = {"AuthenticatorNotFound", "NoPassword"}

_USER = "query ($id: ID!) { node(id: $id) { ... on User { isDisabled standardAttributes } } }"
_EXPIRE = """mutation ($id: ID!, $expired: Boolean!) {
  setPasswordExpired(input: {userID: $id, expired: $expired}) { user { id } }
}"""
_SEND = "mutation ($loginID: ID!) { sendResetPasswordMessage(input: {loginID: $loginID}) }"
_LOGS = """query ($from: DateTime, $types: [AuditLogActivityType!], $first: Int, $after: String) {
  auditLogs(rangeFrom: $from, activityTypes: $types, first: $first, after: $after, sortDirection: ASC) {
    edges { cursor node { createdAt data } }
    pageInfo { hasNextPage }
  }
}"""


class AuthgearKey(NamedTuple):
    """The key that signs our token: the project's id, the key's id, and the key itself."""

    app_id: str
    key_id: str
    private: RSAPrivateKey


class AuditLogPage(NamedTuple):
    """One page of the audit log, oldest first: the edges as they came, whether there are more, and the API's own time."""

    edges: Sequence[Mapping[str, Any]]
    more: bool
    date: str


class AuthgearApi(BaseApi):
    """The client of one project's Admin API.

    Args:
        endpoint: the project's, without a path.
        key: signs our calls.
        session: gives the pooled HTTP session.
        types: the activity types that will be read; `check` tries them.
        prefix: the beginning of the settings' names, for reasons.
        now: gives Unix seconds.
    """

    def __init__(
        self,
        endpoint: str,
        key: AuthgearKey,
        session: Callable[[], aiohttp.ClientSession],
        *,
        types: Sequence[str] = (),
        prefix: str = "USHER_AUTHGEAR__",
        now: Callable[[], float] = time.time,
    ) -> None:
        self.what = f"Authgear (app {key.app_id})"
        self._key, self._types, self._prefix, self._now = key, types, prefix, now
        self._unknown: frozenset[str] = frozenset()
        hint = f"{prefix}APP_ID, {prefix}KEY_ID and {prefix}PRIVATE_KEY, and this machine's clock"
        self._api = ApiClient(self.what, endpoint, session, self._sign, hint)

    async def user(self, event: Event) -> User:
        data = await self._ask(_USER, event, id=_node_id(event))
        node = data.get("node")
        if not isinstance(node, dict):
            raise no_user(event, self.what, self._now())
        given = _dict(node.get("standardAttributes"))
        known = {name: value for name, value in given.items() if isinstance(value, str) and value}
        return read_user(
            {
                "id": event.user.id or event.context.user_id,
                "username": known.get("preferred_username"),
                "email": known.get("email"),
                "phone": known.get("phone_number"),
                "name": known.get("name") or known.get("given_name"),
                "locale": known.get("locale"),
                "disabled": node.get("isDisabled"),
            }
        )

    async def require_password_change(self, event: Event) -> None:
        await self._ask(_EXPIRE, event, id=_node_id(event), expired=True)

    async def clear_password_change(self, event: Event) -> None:
        await self._ask(_EXPIRE, event, id=_node_id(event), expired=False)

    async def password_link(self, event: Event) -> PasswordLink:  # noqa: ARG002
        raise Reject(
            f"{self.what} gives no link that we could send: its API makes codes for login and verification only; "
            "send_password_reset has it send its own message"
        )

    async def send_password_reset(self, event: Event) -> None:
        user = event.user if event.user.email or event.user.phone else await self.user(event)
        login_id = user.email or user.phone
        if login_id is None:
            raise NoAddress("the user has neither email address nor phone number that a reset message could go to")
        await self._ask(_SEND, event, loginID=login_id)

    async def check(self) -> str:
        await self.logs(None, self._types, first=1)
        lacks = f"; it does not know {', '.join(sorted(self._unknown))}, which are left out" if self._unknown else ""
        return f"the Admin API of {self._key.app_id} takes our key, and its audit log can be read{lacks}"

    async def logs(
        self, since: str | None, types: Sequence[str], *, first: int, after: str | None = None
    ) -> AuditLogPage:
        """Read a page of the audit log, from *since* (ISO 8601) on; *types* are activity types as the API spells them.

        Raises:
            Retry, Hold
        """
        asked = [name for name in types if name not in self._unknown]
        answer = await self._post(_LOGS, {"from": since, "types": asked, "first": first, "after": after})
        if _error_names(answer.document.get("errors")) == [_NO_QUERY] and (newer := _NEWER.intersection(asked)):
            self._unknown |= newer  # an older server: the other types must not wait for it
            return await self.logs(since, types, first=first, after=after)
        data = self._data(answer, self._refuse_log)
        found = data.get("auditLogs")
        if not isinstance(found, dict):
            raise Retry(f"{self.what} answered without an audit log")
        edges = [edge for edge in _list(found.get("edges")) if isinstance(edge, dict)]
        more = bool(edges and _dict(found.get("pageInfo")).get("hasNextPage"))
        return AuditLogPage(edges, more, answer.headers.get("Date", ""))

    async def _ask(self, query: str, event: Event, **variables: Any) -> Mapping[str, Any]:
        return self._data(await self._post(query, variables), lambda name: self._refuse_call(name, event))

    async def _post(self, query: str, variables: Mapping[str, Any]) -> Answer:
        answer = await self._api.call("POST", PATH, json={"query": query, "variables": variables})
        if not {"data", "errors"} & _dict(answer.document).keys():
            raise Hold(
                f"{self.what}: there is no Admin API at its endpoint (it answered {answer.status}); see {self._prefix}ENDPOINT",
                after=_REFUSED,
            )
        return answer

    def _data(self, answer: Answer, refuse: Callable[[str], NoReturn]) -> Mapping[str, Any]:
        """Take out the data of an answer. GraphQL's errors come with status 200; their messages may quote our query, and are dropped."""
        names = _error_names(answer.document.get("errors"))
        for name in names:
            if name in _REFUSALS:
                self._api.refused(answer.status)
            if name in _PASSING:
                raise Retry(f"{self.what} can't now: {name}")
        if names:
            refuse(names[0])
        data = answer.document.get("data")
        if not isinstance(data, dict):
            raise Retry(f"{self.what} answered without data")
        return data

    def _refuse_call(self, name: str, event: Event) -> NoReturn:
        """Raise that a call for one delivery was refused: that concerns no other delivery."""
        if name in _GONE:
            raise no_user(event, self.what, self._now())
        if name in _NO_PASSWORD:
            raise Skip(f"the user has no password in {self.what}")
        raise Reject(f"{self.what} refuses: {name}")

    def _refuse_log(self, name: str) -> NoReturn:
        """Raise that the audit log was refused: our position in it is still valid, the settings may be wrong."""
        raise Hold(f"{self.what} refuses to show its audit log ({name}); see {self._prefix}POLL_TYPES", after=_REFUSED)

    async def _sign(self) -> Token:
        made = int(self._now()) - _TOKEN_AGE
        claims = {"aud": [self._key.app_id], "iat": made, "exp": made + _TOKEN_LIFE, "audit_context": dict(OUR_CALLS)}
        signed = jwt.encode(claims, self._key.private, "RS256", headers={"kid": self._key.key_id})
        return Token(signed, _TOKEN_LIFE - _TOKEN_AGE)


def activity_type(raw_type: str) -> str:
    """Spell an event's type as the API does: ``user.created`` is ``USER_CREATED``."""
    return raw_type.replace(".", "_").upper()


def _node_id(event: Event) -> str:
    """Make the Relay id of the event's user: unpadded base64url of ``User:`` and the id.

    Raises:
        Reject: the event names no user.
    """
    user_id = event.user.id or event.context.user_id
    if not user_id:
        raise Reject("the event does not say which user it is about")
    return base64.urlsafe_b64encode(f"User:{user_id}".encode()).rstrip(b"=").decode()


def _error_names(errors: object) -> list[str]:
    """Name each GraphQL error: by its reason and its kind; if it has neither, the query itself was refused."""
    names = []
    for error in _list(errors):
        extensions = _dict(_dict(error).get("extensions"))
        given = [extensions.get("reason"), extensions.get("errorName")]
        names += [name for name in given if isinstance(name, str) and _NAME.fullmatch(name)] or [_NO_QUERY]
    return names


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()

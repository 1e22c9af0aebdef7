"""A loopback Authgear: its Admin API with users and an audit log. It checks tokens, returns pages, and fails on demand.

    async with FakeAuthgear() as fake:
        fake.users["u-1"] = {"email": "kim.berg@example.com"}
        fake.happens(raw_event("password.reset", tenant=fake.app_id, user_id="u-1"))
        fake.script(answer(503), RESET)         # for the next two requests; then it works
        ... USHER_AUTHGEAR__ENDPOINT=fake.url, __APP_ID=fake.app_id, __KEY_ID=fake.key_id, __PRIVATE_KEY=fake.private_key

It knows only the calls that Usher makes, not GraphQL. Like Authgear, it gives times in whole seconds, has no order within a
second, returns at most a page however much is asked for, and writes an entry for each change that is made through its API.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import random
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.fakes.system import FakeSystem

PATH = "/_api/admin/graphql"
_ROOT = re.compile(r"\b(auditLogs|node|setPasswordExpired|sendResetPasswordMessage)\s*\(")
_ACTIVITY_TYPES = frozenset(
    {
        "USER_CREATED", "USER_AUTHENTICATED", "USER_PROFILE_UPDATED", "USER_DISABLED", "USER_REENABLED", "USER_DELETED",
        "IDENTITY_EMAIL_ADDED", "IDENTITY_EMAIL_UPDATED", "IDENTITY_PHONE_ADDED", "IDENTITY_PHONE_UPDATED",
        *(
            f"ADMIN_API_MUTATION_{name}_EXECUTED"
            for name in (
                "CREATE_USER", "UPDATE_USER", "DELETE_USER", "RESET_PASSWORD", "SET_PASSWORD_EXPIRED",
                "SEND_RESET_PASSWORD_MESSAGE", "GENERATE_OOB_OTP_CODE", "SET_DISABLED_STATUS",
            )
        ),
    }
)  # fmt: skip
"""Some of the activity types that Authgear knows."""


class Refusal(Exception):
    """A GraphQL error. *reason* is the code that Authgear's clients read; it is empty if the query itself is wrong."""

    def __init__(self, message: str, reason: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.reason, self.kind = reason, kind or reason


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    """One for all fakes of a process: to make a key takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class FakeAuthgear(FakeSystem):
    """Serves Authgear's Admin API, as an async context manager.

    Args:
        app_id: the project's id.
        page_size: the largest number of entries on a page.
        slow: seconds before each answer.
        now: Unix seconds.
        port: 0 lets the system choose.
    """

    def __init__(
        self,
        app_id: str = "example",
        *,
        page_size: int = 100,
        slow: float = 0.0,
        now: Callable[[], float] = time.time,
        port: int = 0,
    ) -> None:
        super().__init__(slow=slow, port=port)
        self.app_id, self.key_id, self.page_size = app_id, "fake-key", page_size
        self.disabled: set[str] = set()
        """The ids of the users that are disabled."""
        self.users: dict[str, dict[str, Any]] = {}
        """Standard attributes by user id."""
        self.without_password: set[str] = set()
        self.expired: dict[str, bool] = {}
        """For each user id whether the password was set to expired."""
        self.sent: list[str] = []
        """The login ids to which a reset message was sent."""
        self.asked: list[str] = []
        """The root field of each call that was understood."""
        self.tokens: list[str] = []
        """The tokens of the requests, valid or not."""
        self._key = _key()
        self._now, self._seq = now, 0x1000
        self.audit_log: list[dict[str, Any]] = []
        self._rng = random.Random(self._seq)

    @property
    def private_key(self) -> str:
        """The Admin API key, as the portal offers it for download."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def happens(self, event: bytes | Mapping[str, Any]) -> None:
        """Write an event to the audit log unchanged. Its own time decides its position, however late it is written."""
        self.audit_log.append(json.loads(event) if isinstance(event, bytes) else dict(event))

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post(PATH, self._served(self._answer))

    async def _answer(self, http: web.Request) -> web.Response:
        claims = self._claims(http.headers.get("Authorization", ""))
        if claims is None:
            return web.Response(status=403, text="Forbidden\n")
        try:
            call = json.loads(await http.read())
            root, variables = _ROOT.search(call["query"]), call.get("variables") or {}
            if root is None:
                raise Refusal("Cannot query field")
            self.asked.append(root[1])
            data = {root[1]: self._calls[root[1]](self, variables, claims.get("audit_context") or {})}
        except Refusal as refusal:
            return web.json_response({"data": None, "errors": [_error(refusal)]}, headers=self._date())
        except (ValueError, KeyError, TypeError):
            return web.Response(status=400, text="Bad Request\n")
        return web.json_response({"data": data}, headers=self._date())

    def _claims(self, authorization: str) -> dict[str, Any] | None:
        """Return the claims of a valid token; None: it is not valid."""
        kind, _, token = authorization.partition(" ")
        self.tokens.append(token)
        try:
            if kind != "Bearer" or jwt.get_unverified_header(token).get("kid") != self.key_id:
                return None
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key.public_key(),
                ["RS256"],
                audience=self.app_id,
                options={"require": ["exp", "iat", "aud"]},
            )
        except jwt.InvalidTokenError:
            return None
        return claims

    def _date(self) -> dict[str, str]:
        return {"Date": datetime.fromtimestamp(self._now(), UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")}

    # The calls.

    def _audit_logs(self, given: Mapping[str, Any], _audit: object) -> dict[str, Any]:
        types = given.get("types")
        for number, name in enumerate(types or (), 1):
            if name not in _ACTIVITY_TYPES:
                raise Refusal(f'Variable "$types" got invalid value. In element #{number}: unknown "{name}".')
        since = datetime.fromisoformat(given["from"]).timestamp() if given.get("from") else 0.0
        found = [
            entry for entry in self.audit_log if _stamp(entry) >= since and (not types or _activity(entry) in types)
        ]
        self._rng.shuffle(found)  # entries of the same second have no order
        found.sort(key=_stamp)
        start = _offset(given["after"]) + 1 if given.get("after") else 0
        limit = min(given.get("first") or self.page_size, self.page_size)
        page = found[start : start + limit]
        return {
            "edges": [{"cursor": _cursor(start + number), "node": _node(entry)} for number, entry in enumerate(page)],
            "pageInfo": {"hasNextPage": len(page) == limit},
        }

    def _user_node(self, given: Mapping[str, Any], _audit: object) -> dict[str, Any] | None:
        attributes = self.users.get(_user_id(given["id"]))
        if attributes is None:
            return None
        return {"isDisabled": _user_id(given["id"]) in self.disabled, "standardAttributes": attributes}

    def _set_expired(self, given: Mapping[str, Any], audit: Mapping[str, Any]) -> dict[str, Any]:
        user_id, expired = _user_id(given["id"]), given["expired"]
        if user_id not in self.users:
            raise Refusal("user not found", "UserNotFound", "NotFound")
        if user_id in self.without_password:
            raise Refusal("authenticator not found", "AuthenticatorNotFound", "NotFound")
        self.expired[user_id] = expired
        user = {"id": user_id, "standard_attributes": self.users[user_id]}
        self._log_mutation("set_password_expired", {"user": user, "expired": expired}, user_id, audit)
        return {"user": {"id": given["id"]}}

    def _send_reset(self, given: Mapping[str, Any], audit: Mapping[str, Any]) -> None:
        login_id = given["loginID"]
        known = {value for attributes in self.users.values() for value in attributes.values()}
        if login_id not in known:
            raise Refusal(f"no user is known by {login_id}", "UserNotFound", "NotFound")
        self.sent.append(login_id)
        self._log_mutation("send_reset_password_message", {"login_id": login_id}, "", audit)

    _calls: Mapping[str, Callable[..., Any]] = {
        "auditLogs": _audit_logs,
        "node": _user_node,
        "setPasswordExpired": _set_expired,
        "sendResetPasswordMessage": _send_reset,
    }

    def _log_mutation(self, name: str, payload: Mapping[str, Any], user_id: str, audit: Mapping[str, Any]) -> None:
        self._seq += 1
        self.happens(
            {
                "id": f"{self._seq:016x}",
                "seq": self._seq,
                "type": f"admin_api.mutation.{name}.executed",
                "payload": payload,
                "context": {
                    "timestamp": int(self._now()),
                    "user_id": user_id or None,
                    "triggered_by": "admin_api",
                    "audit_context": {"http_url": f"{self.url}{PATH}", **audit},
                    "preferred_languages": [],
                    "app_id": self.app_id,
                },
            }
        )


def _node(entry: Mapping[str, Any]) -> dict[str, Any]:
    created = datetime.fromtimestamp(_stamp(entry), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "id": _relay(f"AuditLog:{entry['id']}"),
        "activityType": _activity(entry),
        "createdAt": created,
        "data": entry,
    }


def _activity(entry: Mapping[str, Any]) -> str:
    return str(entry["type"]).replace(".", "_").upper()


def _stamp(entry: Mapping[str, Any]) -> int:
    return int(entry["context"]["timestamp"])


def _cursor(offset: int) -> str:
    return _relay(f"offset:{offset}")


def _offset(cursor: str) -> int:
    try:
        return int(_unrelay(cursor).removeprefix("offset:"))
    except ValueError:
        raise Refusal("invalid pagination cursor", "InvalidCursor", "BadRequest") from None


def _user_id(node_id: str) -> str:
    kind, _, user_id = _unrelay(node_id).partition(":")
    if kind != "User":
        raise Refusal("invalid ID", "Invalid")
    return user_id


def _relay(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _unrelay(text: str) -> str:
    if "=" in text:
        raise Refusal("illegal base64 data", "Invalid")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Refusal("illegal base64 data", "Invalid") from None


def _error(refusal: Refusal) -> dict[str, Any]:
    error: dict[str, Any] = {"message": str(refusal), "locations": [], "path": []}
    if refusal.reason:
        error["extensions"] = {"errorName": refusal.kind, "reason": refusal.reason}
    return error

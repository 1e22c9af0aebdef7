"""The client of GenAuth's and Authing's management API (v3). Hides how requests are signed and how answers report errors.

An answer is 200 with the real status in its body. The vendor's SDKs show what is signed: the method, the signed headers in
order, the path, and the query or the body's fields in order.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal

from usher.event import Event, User
from usher.outcome import Hold, Outcome, Reject, Retry, Skip
from usher.systems.api import ApiClient, BaseApi, no_user
from usher.systems.canonical import read_user
from usher.systems.genauth.source import user_fields

Brand = Literal["genauth", "authing"]

_PAGE = 50
"""The most entries that the API gives at once."""
_SCHEMES: Mapping[Brand, str] = {"genauth": "GenAuth", "authing": "authing"}
_NOBODY = "usher-check"
"""The id of a user that does not exist: a look-up proves the credentials, and reads nobody's data."""
_BUSY = 60.0


class GenAuthApi(BaseApi):
    """The client of one user pool: a `usher.system.IdentitySystem`, and the look-ups that find out who triggered an event.

    Args:
        api: without a token: every request is signed.
        key_id, key_secret: the access key.
        brand: the brand whose names the signature carries.
        country_code: of phone numbers that come without one.
    """

    what = "GenAuth"

    def __init__(self, api: ApiClient, *, key_id: str, key_secret: str, brand: Brand, country_code: str) -> None:
        self._api, self._key_id, self._key_secret = api, key_id, key_secret
        self._brand, self._country_code = brand, country_code

    async def user(self, event: Event) -> User:
        found = await self._profile(_subject(event))
        if found is None:
            raise no_user(event, self._api.what)
        return read_user(user_fields(found, self._country_code))

    async def require_password_change(self, event: Event) -> None:
        first = event.type == "user.created"
        flag = "resetPasswordOnFirstLogin" if first else "resetPasswordOnNextLogin"
        await self._update(event, {flag: True})

    async def clear_password_change(self, event: Event) -> None:
        await self._update(event, {"resetPasswordOnFirstLogin": False, "resetPasswordOnNextLogin": False})

    async def profile(self, user_id: str) -> Mapping[str, Any]:
        """Ask get-user for a user.

        Raises:
            Skip: there is no such user.
            Retry, Hold, Reject
        """
        found = await self._profile(user_id)
        if found is None:
            raise Skip(f"{self._api.what} has no such user")
        return found

    async def audits(self, start: float, end: float, *, most: int | None = None) -> Sequence[Any] | None:
        """Read what administrators did to users from *start* until *end* (Unix seconds), in no order; None: more than *most* entries.

        Raises:
            Retry, Hold, Reject
        """
        entries: list[Any] = []
        page = 1
        while True:
            found, total = await self._audits(start, end, page)
            if most is not None and total > most:
                return None
            entries += found
            if len(entries) >= total or len(found) < _PAGE:
                return entries
            page += 1

    async def check(self) -> str:
        with contextlib.suppress(Skip):
            await self.profile(_NOBODY)
        now = time.time()
        try:
            await self.audits(now, now + 1)
        except (Hold, Reject) as refusal:
            raise Hold(
                f"{self._api.what} takes the access key, but not for get-admin-audit-logs, without which it can't be known who "
                f"changed a password: {refusal.reason}",
                after=_BUSY,
            ) from None
        return f"{self._api.base_url} takes the access key {self._key_id}, also for the admin audit log"

    async def _profile(self, user_id: str) -> Mapping[str, Any] | None:
        data = await self._call("GET", "/api/v3/get-user", {"userId": user_id, "userIdType": "user_id"})
        return data if isinstance(data, dict) else None

    async def _update(self, event: Event, options: Mapping[str, bool]) -> None:
        given = {"userId": _subject(event), "options": {"userIdType": "user_id", **options}}
        if await self._call("POST", "/api/v3/update-user", given) is None:
            raise no_user(event, self._api.what)

    async def _audits(self, start: float, end: float, page: int) -> tuple[list[Any], int]:
        """Read a page of entries, and how many there are in all."""
        wanted = {
            "resourceType": "user",
            "success": True,
            "start": int(start * 1000),
            "end": int(end * 1000),
            "pagination": {"page": page, "limit": _PAGE},
        }
        data = await self._call("POST", "/api/v3/get-admin-audit-logs", wanted)
        found, total = (data.get("list"), data.get("totalCount")) if isinstance(data, dict) else (None, None)
        entries = [found] if isinstance(found, dict) else found
        if not isinstance(entries, list) or not isinstance(total, int):
            raise Retry(f"{self._api.what} answered with something else than audit logs")
        return entries, total

    async def _call(self, method: Literal["GET", "POST"], path: str, given: Mapping[str, Any]) -> Any:
        """Call, and return the ``data`` of the answer; None: it does not exist.

        Raises:
            Retry, Hold, Reject
        """
        headers = signed_headers(
            method, path, given, key_id=self._key_id, key_secret=self._key_secret, brand=self._brand
        )
        if method == "GET":
            answer = await self._api.ask(method, path, params=given, headers=headers)
        else:
            answer = await self._api.ask(method, path, json=given, headers=headers)
        body = answer.document if isinstance(answer.document, dict) else {}
        given_status = body.get("statusCode")
        status = given_status if isinstance(given_status, int) and answer.status == 200 else answer.status
        if status == 200 and "data" in body:
            return body["data"]
        if status == 404:
            return None
        if status in (401, 403):
            self._api.refused(status)
        raise self._trouble(status, body.get("apiCode"))

    def _trouble(self, status: int, code: object) -> Outcome:
        """Say what a status other than success means; the answer's own text is left out, because it may name a user."""
        what = self._api.what
        if status == 429:
            return Retry(f"{what} says that we call too often", after=_BUSY)
        if status == 200:
            return Retry(f"{what} answered without an answer")
        if status >= 500:
            return Retry(f"{what} answered {status}")
        return Reject(f"{what} refuses: status {status}, apiCode {code if isinstance(code, int) else 'none'}")


def signed_headers(
    method: str, path: str, given: Mapping[str, Any], *, key_id: str, key_secret: str, brand: Brand
) -> dict[str, str]:
    """Make the headers of one request, with its signature; *given* is its query or its body."""
    prefix = f"x-{brand}-signature-"
    headers = {
        "date": format_datetime(datetime.now(UTC), usegmt=True),
        f"{prefix}method": "HMAC-SHA1",
        f"{prefix}nonce": secrets.token_hex(16),
        f"{prefix}version": "1.0",
    }
    text = string_to_sign(method, path, headers, given)
    digest = hmac.new(key_secret.encode(), text.encode(), hashlib.sha1).digest()
    return {**headers, "authorization": f"{_SCHEMES[brand]} {key_id}:{base64.b64encode(digest).decode()}"}


def string_to_sign(method: str, path: str, headers: Mapping[str, str], given: Mapping[str, Any]) -> str:
    """Write the text that is signed: *headers* are those that the signature covers."""
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    query = "&".join(f"{name}={_as_signed(given[name])}" for name in sorted(given))
    return f"{method}\n{lines}{path}?{query}" if query else f"{method}\n{lines}{path}"


def _as_signed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _subject(event: Event) -> str:
    user = event.user.id or event.context.user_id
    if user is None:
        raise Reject("the event names no user")
    return user

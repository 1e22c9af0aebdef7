"""A loopback GenAuth: its management API with users and an admin audit log. It checks signatures, and fails on demand.

    async with FakeGenAuth() as fake:
        fake.users["u-1"] = {"email": "kim.berg@example.com", "userSourceType": "adminCreated"}
        fake.administrator("update", "u-1", {"password": "…"})
        fake.script(answer(503), RESET)         # for the next two requests; then it works
        ... USHER_GENAUTH__URL=fake.url, __ACCESS_KEY_ID=fake.key_id, __ACCESS_KEY_SECRET=fake.key_secret, __BRAND=fake.brand

It knows only the calls that Usher makes. Like GenAuth, it answers 200 with the real status in the body, returns at most 50
entries a page, and has no reliable order.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from aiohttp import web
from tests.fakes.system import FakeSystem

_PAGE = 50
_SCHEMES = {"genauth": "GenAuth", "authing": "authing"}


class FakeGenAuth(FakeSystem):
    """Serves GenAuth's management API, as an async context manager.

    Args:
        user_pool_id: the pool's id, which is also the id of its access key.
        brand: the brand whose names a signature must carry, ``genauth`` or ``authing``.
        slow: seconds before each answer.
        now: Unix seconds.
        port: 0 lets the system choose.
    """

    def __init__(
        self,
        user_pool_id: str = "fake-user-pool",
        *,
        brand: str = "genauth",
        slow: float = 0.0,
        now: Callable[[], float] = time.time,
        port: int = 0,
    ) -> None:
        super().__init__(slow=slow, port=port)
        self.user_pool_id = self.key_id = user_pool_id
        self.key_secret, self.brand = "fake-access-key-secret", brand
        self.users: dict[str, dict[str, Any]] = {}
        """Users by id, in the shape of get-user."""
        self.options: list[tuple[str, dict[str, Any]]] = []
        """The calls of update-user: the user's id, and the options."""
        self.asked: list[str] = []
        """The path of each call with a valid signature."""
        self._entries: list[dict[str, Any]] = []
        self._now = now

    def administrator(
        self, operation: str, user: str, parameters: Mapping[str, Any] | None = None, *, at: float | None = None
    ) -> str:
        """Write to the audit log that an administrator has done *operation* to *user*. Return the request's id."""
        moment = datetime.fromtimestamp(self._now() if at is None else at, UTC)
        entry = {
            "adminUserId": "fake-administrator", "adminUserDisplayName": "Ada Boss", "clientIp": "127.0.0.1",
            "operationType": operation, "resourceType": "user", "eventDetail": f"{operation} user",
            "operationParam": json.dumps({"userId": user, **(parameters or {})}), "success": True,
            "userAgent": "curl/8", "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000",
            "requestId": str(uuid4()),
        }  # fmt: skip
        return self.entry(entry)

    def entry(self, entry: Mapping[str, Any]) -> str:
        """Write *entry* to the audit log unchanged. Return its id."""
        self._entries.append(dict(entry))
        return str(entry.get("requestId"))

    def webhook(self, name: str, data: Mapping[str, Any], secret: str) -> tuple[bytes, dict[str, str]]:
        """Make the body and the headers of a webhook call, as GenAuth does."""
        headers = {
            "content-type": "application/json",
            "user-agent": "authing-webhook@2.0",
            "x-authing-webhook-secret": secret,
            "x-authing-userpool-id": self.user_pool_id,
        }
        return json.dumps({"eventName": name, "data": data}).encode(), headers

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        serve = self._served(self._answer)
        router.add_get("/api/v3/get-user", serve)
        router.add_post("/api/v3/update-user", serve)
        router.add_post("/api/v3/get-admin-audit-logs", serve)

    async def _answer(self, http: web.Request) -> web.Response:
        given: dict[str, Any] = dict(http.query) if http.method == "GET" else json.loads(await http.read())
        if not self._signed(http, given):
            return _reply(401, 2020, "the signature does not match")
        self.asked.append(http.path)
        if http.path.endswith("get-admin-audit-logs"):
            return _reply(200, data=self._audit_logs(given))
        user = self.users.get(given["userId"])
        if user is None:
            return _reply(404, 2004, f"user {given['userId']} does not exist")
        if http.path.endswith("update-user"):
            options = {name: value for name, value in given.get("options", {}).items() if name != "userIdType"}
            self.options.append((given["userId"], options))
        return _reply(200, data={"userId": given["userId"], **user})

    def _signed(self, http: web.Request, given: Mapping[str, Any]) -> bool:
        """Say whether the request was signed with our key: its method, its signed headers, its path and its parameters."""
        own = f"x-{self.brand}-"
        lines = [http.method]
        lines += [
            f"{name.lower()}:{value.strip()}"
            for name, value in sorted(http.headers.items(), key=lambda pair: pair[0].lower())
            if name.lower().startswith(own) or name.lower() == "date"
        ]
        fields = [
            f"{name}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'), ensure_ascii=False)}"
            for name, value in sorted(given.items())
        ]
        lines.append(http.path + "?" + "&".join(fields))
        digest = hmac.digest(self.key_secret.encode(), "\n".join(lines).encode(), hashlib.sha1)
        expected = f"{_SCHEMES[self.brand]} {self.key_id}:{base64.b64encode(digest).decode()}"
        return hmac.compare_digest(http.headers.get("Authorization", "").encode(), expected.encode())

    def _audit_logs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        found = [
            entry
            for entry in self._entries
            if given["start"] <= datetime.fromisoformat(entry["timestamp"]).timestamp() * 1000 <= given["end"]
            and given.get("resourceType") in {None, entry["resourceType"]}
        ]
        page, limit = given["pagination"]["page"], min(given["pagination"]["limit"], _PAGE)
        in_pages = sorted(found, key=lambda entry: str(entry.get("requestId")))  # so that pages together hold all
        return {"totalCount": len(found), "list": in_pages[(page - 1) * limit : page * limit]}


def _reply(status: int, code: int | None = None, message: str = "", *, data: Any = None) -> web.Response:
    body: dict[str, Any] = {"statusCode": status, "message": message, "requestId": str(uuid4())}
    body |= {"data": data} if code is None else {"apiCode": code}
    return web.json_response(body)

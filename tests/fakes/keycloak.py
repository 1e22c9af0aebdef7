"""A loopback Keycloak: the admin API of one realm with users and admin events. It checks tokens, and fails on demand.

    async with FakeKeycloak() as fake:
        event = fake.create_user("u-1", email="kim.berg@example.com")
        fake.script(answer(503), RESET)         # for the next two requests; then it works
        ... USHER_KEYCLOAK__URL=fake.url, __REALM=fake.realm, __CLIENT_ID=fake.client_id, __CLIENT_SECRET=fake.client_secret
        body, headers = fake.webhook(event, secret)   # as p2-inc's extension would post it

It knows only the calls that Usher makes. Like Keycloak, it lists admin events newest first, leaves the realm's name out of
them, and writes one for each change that is made.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from tests.fakes.system import FakeSystem, Serve

_ADMIN = {"realmId": "master", "clientId": "admin-cli", "ipAddress": "192.0.2.10"}
ACCOUNT = "the-service-account-of-usher"
"""The id of the user behind the client: the actor of the changes that are made through the API."""
_MISSING = {"error": "User not found"}


class FakeKeycloak(FakeSystem):
    """Serves Keycloak's admin API, as an async context manager.

    Args:
        realm: the realm's name.
        slow: seconds before each answer.
        now: Unix seconds.
        port: 0 lets the system choose.
    """

    def __init__(
        self, realm: str = "example", *, slow: float = 0.0, now: Callable[[], float] = time.time, port: int = 0
    ) -> None:
        super().__init__(slow=slow, port=port)
        self.realm = realm
        self.client_id, self.client_secret = "usher", "fake-client-secret"
        self.users: dict[str, dict[str, Any]] = {}
        """Representations of users by id."""
        self.admin_events: list[dict[str, Any]] = []
        """The admin events as the admin API returns them, in the order in which they were written."""
        self.user_events: list[dict[str, Any]] = []
        """What users did themselves, as the admin API returns it."""
        self.events_config = {"adminEventsEnabled": True, "adminEventsDetailsEnabled": True}
        self.passwords: dict[str, float] = {}
        """When the password of each user was set, in Unix seconds."""
        self.sent: list[str] = []
        """The ids of the users that the realm has sent its own mail to."""
        self.forbidden = False
        """Whether the service account lacks its roles."""
        self.asked: list[str] = []
        """Method and path of each request."""
        self._now = now
        self._tokens: set[str] = set()

    def forget_tokens(self) -> None:
        """Refuse all tokens that were given out, as after a restart."""
        self._tokens.clear()

    def create_user(self, user_id: str, **fields: Any) -> dict[str, Any]:
        """Make a user, as an admin does. Return the admin event."""
        self.users[user_id] = {"id": user_id, "username": user_id, "enabled": True, "requiredActions": [], **fields}
        return self.happens("CREATE", f"users/{user_id}", {"username": user_id, "enabled": True, **fields})

    def reset_password(self, user_id: str, *, temporary: bool = True) -> dict[str, Any]:
        """Set a password, as an admin does. Return the admin event; a temporary one requires a new one without another event."""
        self.passwords[user_id] = self._now()
        required = {*self.users[user_id]["requiredActions"]} - {"UPDATE_PASSWORD"}
        self.users[user_id]["requiredActions"] = sorted(required | ({"UPDATE_PASSWORD"} if temporary else set()))
        return self.happens("ACTION", f"users/{user_id}/reset-password")

    def happens(
        self,
        operation: str,
        path: str,
        representation: Mapping[str, Any] | None = None,
        *,
        at: float | None = None,
        by: str = "an-administrator",
    ) -> dict[str, Any]:
        """Write an admin event and return it. Its own time decides its position, however late it is. *by*: the actor's id."""
        event = {
            "id": str(uuid.uuid4()),
            "time": round((self._now() if at is None else at) * 1000),
            "realmId": str(uuid.uuid5(uuid.NAMESPACE_DNS, self.realm)),
            "authDetails": {**_ADMIN, "userId": by},
            "operationType": operation,
            "resourceType": "USER",
            "resourcePath": path,
        }
        if representation is not None:
            event["representation"] = json.dumps(representation)
        self.admin_events.append(event)
        return event

    def webhook(self, event: Mapping[str, Any], secret: str) -> tuple[bytes, dict[str, str]]:
        """Make the body and headers with which p2-inc's extension reports an admin event."""
        kind = f"admin.{event['resourceType']}-{event['operationType']}"
        own = {"realmName": self.realm, "uid": str(uuid.uuid4()), "details": {}, "type": kind}
        body = json.dumps({**event, **own}).encode()
        return body, {"X-Keycloak-Signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        admin = f"/admin/realms/{self.realm}"
        routes: list[tuple[str, str, Callable[[web.Request], Any]]] = [
            ("GET", "/users", lambda _: list(self.users.values())[:1]),
            ("GET", "/users/{user}", self._user),
            ("PUT", "/users/{user}", self._update),
            ("GET", "/users/{user}/credentials", self._credentials),
            ("PUT", "/users/{user}/execute-actions-email", self._send),
            ("GET", "/admin-events", self._list_events),
            ("GET", "/events", lambda http: [e for e in self.user_events if e["userId"] == http.query.get("user")]),
            ("GET", "/events/config", lambda _: self.events_config),
        ]
        router.add_post(f"/realms/{self.realm}/protocol/openid-connect/token", self._handler(self._token, free=True))
        for method, path, answer in routes:
            router.add_route(method, admin + path, self._handler(answer))

    def _arrived(self, http: web.Request) -> None:
        self.asked.append(f"{http.method} {http.path}")

    def _handler(self, find: Callable[[web.Request], Any], *, free: bool = False) -> Serve:
        """Return a route for a call. It needs a token unless it is *free*, and fails as the script says."""

        async def act(http: web.Request) -> web.Response:
            if not free and http.headers.get("Authorization", "").removeprefix("Bearer ") not in self._tokens:
                return web.json_response({"error": "HTTP 401 Unauthorized"}, status=401)
            if not free and self.forbidden:
                return web.json_response({"error": "HTTP 403 Forbidden"}, status=403)
            found = find(http)
            found = await found if asyncio.iscoroutine(found) else found
            return found if isinstance(found, web.Response) else web.json_response(found)

        return self._served(act)

    async def _token(self, http: web.Request) -> Any:
        form = await http.post()
        given = (form.get("grant_type"), form.get("client_id"), form.get("client_secret"))
        if given != ("client_credentials", self.client_id, self.client_secret):
            error = {
                "error": "unauthorized_client",
                "error_description": "Invalid client or Invalid client credentials",
            }
            return web.json_response(error, status=401)
        claims = json.dumps({"sub": ACCOUNT, "jti": str(uuid.uuid4())}).encode()
        token = f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.signature"
        self._tokens.add(token)
        return {"access_token": token, "expires_in": 300, "token_type": "Bearer", "scope": "profile email"}

    def _user(self, http: web.Request) -> Any:
        return self.users.get(http.match_info["user"]) or web.json_response(_MISSING, status=404)

    async def _update(self, http: web.Request) -> Any:
        user_id, change = http.match_info["user"], await http.json()
        if user_id not in self.users:
            return web.json_response(_MISSING, status=404)
        self.users[user_id].update({name: value for name, value in change.items() if name != "self"})
        self.happens("UPDATE", f"users/{user_id}", change, by=ACCOUNT)
        return web.Response(status=204)

    def _credentials(self, http: web.Request) -> Any:
        user_id = http.match_info["user"]
        if user_id not in self.users:
            return web.json_response(_MISSING, status=404)
        set_at = self.passwords.get(user_id)
        return [] if set_at is None else [{"id": "c-1", "type": "password", "createdDate": round(set_at * 1000)}]

    def _send(self, http: web.Request) -> Any:
        user_id = http.match_info["user"]
        if user_id not in self.users:
            return web.json_response(_MISSING, status=404)
        if not self.users[user_id].get("email"):
            return web.json_response({"errorMessage": "User email missing"}, status=400)
        self.sent.append(user_id)
        self.happens("ACTION", f"users/{user_id}/execute-actions-email", by=ACCOUNT)
        return web.Response(status=204)

    def _list_events(self, http: web.Request) -> Any:
        wanted = http.query.get("resourceTypes")
        newest_first = sorted(self.admin_events, key=lambda event: -event["time"])
        path = http.query.get("resourcePath", "*").removesuffix("*")
        found = [event for event in newest_first if wanted in (None, event["resourceType"])]
        found = [event for event in found if event["resourcePath"].startswith(path)]
        first = int(http.query.get("first", "0"))
        return found[first : first + int(http.query.get("max", "100"))]

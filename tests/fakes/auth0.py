"""A loopback Auth0: tokens, users, tickets, tenant logs and the stream of events. It fails on demand.

    async with FakeAuth0() as fake:
        eva = fake.create_user(email="eva@example.com")     # as an administrator does in the dashboard
        fake.script(answer(503), RESET)                     # for the next two requests; then it works
        ... USHER_AUTH0__BASE_URL=fake.url, __DOMAIN=fake.domain, __CLIENT_ID=fake.client_id, __CLIENT_SECRET=fake.client_secret

It knows only the calls that Usher makes. Like Auth0, it writes a log entry for each change that is made through its API.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from tests.fakes.auth0_stream import EventStream
from tests.fakes.system import FakeSystem, Serve

DASHBOARD = "fake-dashboard-client"
CONNECTION = "Username-Password-Authentication"
SCOPES = ("read:users", "update:users", "create:user_tickets", "read:logs", "read:events")
_Handler = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]


class FakeAuth0(FakeSystem):
    """Serves Auth0's APIs, as an async context manager.

    Args:
        domain: the tenant's own domain.
        scopes: the scopes that the application is granted.
        slow: seconds before each answer.
        now: Unix seconds.
    """

    def __init__(
        self,
        domain: str = "acme.eu.auth0.com",
        *,
        scopes: tuple[str, ...] = SCOPES,
        slow: float = 0.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(slow=slow)
        self.domain, self.client_id, self.client_secret = domain, "fake-usher-client", "fake-client-secret"
        self.scopes = scopes
        self.users: dict[str, dict[str, Any]] = {}
        self.logs: list[dict[str, Any]] = []
        """The tenant logs, in the order in which the API returns them."""
        self.mails: list[str] = []
        """The addresses that Auth0 has sent its own mail to."""
        self.tickets: list[dict[str, Any]] = []
        """The request for each ticket, with the ``ticket`` that was made."""
        self.asked: list[str] = []
        """The requests in order, as in ``GET /api/v2/logs``."""
        self.stream = EventStream()
        self.remaining: int | None = None
        """The requests that are left of the rate limit; None: the headers don't say."""
        self.reset_at = 0
        self._now = now
        self._tokens: set[str] = set()
        self._numbers = itertools.count(1)

    def forget_tokens(self) -> None:
        """Refuse all tokens that were given out: 401."""
        self._tokens.clear()

    def create_user(self, *, client: str = DASHBOARD, **profile: Any) -> dict[str, Any]:
        """Make a user through the Management API, and the log entry, and return the profile. An event is put on `stream` apart."""
        number = next(self._numbers)
        local = f"{number:024}"
        user = {
            "user_id": f"auth0|{local}",
            "created_at": self._time(),
            "identities": [{"connection": CONNECTION, "provider": "auth0", "user_id": local, "isSocial": False}],
            **profile,
        }
        self.users[user["user_id"]] = user
        self._log_call("post", "/api/v2/users", {"connection": CONNECTION, **profile}, dict(user), client)
        return user

    def set_password(self, user_id: str, password: str, *, client: str = DASHBOARD) -> None:
        """Set a user's password through the Management API."""
        path = f"/api/v2/users/{user_id.replace('|', '%7C')}"
        self._log_call("patch", path, {"password": password}, dict(self.users[user_id]), client)

    def change_password(self, user_id: str) -> None:
        """Let the user change the password."""
        user = self.users[user_id]
        user["last_password_reset"] = self._time()
        about = {"user_id": user_id, "user_name": user.get("email"), "connection": CONNECTION}
        self.log(type="scp", client_id="fake-portal-client", details={"title": "Password Change"}, **about)

    def log(self, **entry: Any) -> dict[str, Any]:
        """Write a log entry; ``date`` is now, unless it is given."""
        log_id = f"900{next(self._numbers):053}"
        self.logs.append({"date": self._time(), **entry, "log_id": log_id, "_id": log_id})
        return self.logs[-1]

    def event_of(self, user: Mapping[str, Any], type_: str = "user.created", **more: Any) -> dict[str, Any]:
        """Make an event of the event stream about a user."""
        return {
            "specversion": "1.0",
            "type": type_,
            "source": f"urn:auth0:{self.domain}",
            "id": f"evt_{next(self._numbers):022}",
            "time": self._time(),
            "data": {"object": dict(user), **more},
            "a0tenant": self.domain.partition(".")[0],
            "a0stream": "est_0000000000000000000001",
        }

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        routes: list[tuple[str, str, _Handler, str | None]] = [
            ("POST", "/oauth/token", self._token, None),
            ("POST", "/dbconnections/change_password", self._mail, None),
            ("GET", "/api/v2/users", self._list_users, "read:users"),
            ("GET", "/api/v2/users-by-email", self._by_email, "read:users"),
            ("GET", "/api/v2/users/{id}", self._get_user, "read:users"),
            ("PATCH", "/api/v2/users/{id}", self._patch_user, "update:users"),
            ("POST", "/api/v2/tickets/password-change", self._ticket, "create:user_tickets"),
            ("GET", "/api/v2/logs", self._get_logs, "read:logs"),
            ("GET", "/api/v2/events", self._events, "read:events"),
        ]
        for method, path, handler, scope in routes:
            router.add_route(method, path, self._served(self._guarded(handler, scope)))

    async def __aexit__(self, *exc: object) -> None:
        await self.stream.end()
        await super().__aexit__(*exc)

    def _arrived(self, http: web.Request) -> None:
        self.asked.append(f"{http.method} {http.path}")

    def _guarded(self, handler: _Handler, scope: str | None) -> Serve:
        """Return a route that checks the token, its *scope* and the rate limit, and gives *handler* the body."""

        async def act(http: web.Request) -> web.StreamResponse:
            token = http.headers.get("Authorization", "").removeprefix("Bearer ")
            if scope is not None and token not in self._tokens:
                return _error(401, "Unauthorized", "Invalid token", "invalid_token")
            if scope is not None and scope not in self.scopes:
                return _error(403, "Forbidden", f"Insufficient scope, expected any of: {scope}", "insufficient_scope")
            if scope is not None and self.remaining == 0:
                return self._limited(
                    _error(429, "Too Many Requests", "Global limit has been reached", "too_many_requests")
                )
            if scope is not None and self.remaining is not None:
                self.remaining -= 1
            body = await http.read()
            response = await handler(http, json.loads(body) if body else None)
            return response if response.prepared else self._limited(response)

        return act

    def _limited(self, response: web.StreamResponse) -> web.StreamResponse:
        if self.remaining is not None:
            response.headers["X-RateLimit-Limit"] = "50"
            response.headers["X-RateLimit-Remaining"] = str(self.remaining)
            response.headers["X-RateLimit-Reset"] = str(self.reset_at)
        return response

    async def _token(self, _http: web.Request, asked: Any) -> web.StreamResponse:
        known = (asked.get("client_id"), asked.get("client_secret")) == (self.client_id, self.client_secret)
        if not known:
            return web.json_response({"error": "access_denied", "error_description": "Unauthorized"}, status=401)
        if asked.get("grant_type") != "client_credentials" or asked.get("audience") != f"https://{self.domain}/api/v2/":
            return web.json_response({"error": "access_denied", "error_description": "Service not found"}, status=403)
        token = f"fake-token-{next(self._numbers)}"
        self._tokens.add(token)
        document = {"access_token": token, "scope": " ".join(self.scopes), "expires_in": 86400, "token_type": "Bearer"}
        return web.json_response(document)

    async def _mail(self, _http: web.Request, asked: Any) -> web.StreamResponse:
        if not all(asked.get(name) for name in ("client_id", "email", "connection")):
            return web.json_response({"error": "parameter is required"}, status=400)
        self.mails.append(asked["email"])
        return web.Response(text="We've just sent you an email to reset your password.")

    async def _list_users(self, _http: web.Request, _asked: Any) -> web.StreamResponse:
        return web.json_response([{"user_id": user_id} for user_id in self.users][:1])

    async def _by_email(self, http: web.Request, _asked: Any) -> web.StreamResponse:
        return web.json_response([user for user in self.users.values() if user.get("email") == http.query["email"]])

    async def _get_user(self, http: web.Request, _asked: Any) -> web.StreamResponse:
        user = self.users.get(http.match_info["id"])
        return _no_user() if user is None else web.json_response(user)

    async def _patch_user(self, http: web.Request, asked: Any) -> web.StreamResponse:
        user = self.users.get(http.match_info["id"])
        if user is None:
            return _no_user()
        metadata = {**user.get("app_metadata", {}), **asked.pop("app_metadata", {})}
        user.update(asked, app_metadata=metadata)
        self._log_call("patch", http.rel_url.raw_path, {"app_metadata": metadata}, dict(user), self.client_id)
        return web.json_response(user)

    async def _ticket(self, _http: web.Request, asked: Any) -> web.StreamResponse:
        if asked.get("user_id") not in self.users:
            return _no_user()
        url = f"https://{self.domain}/lo/reset?ticket=fake-ticket-{next(self._numbers):08}#"
        self.tickets.append({**asked, "ticket": url})
        self._log_call("post", "/api/v2/tickets/password-change", asked, {"ticket": url}, self.client_id)
        return web.json_response({"ticket": url}, status=201)

    async def _get_logs(self, http: web.Request, _asked: Any) -> web.StreamResponse:
        query = http.query
        if "from" in query:
            ids = [entry["log_id"] for entry in self.logs]
            if query["from"] not in ids:
                return _error(400, "Bad Request", "Invalid log id", "invalid_query_string")
            start = ids.index(query["from"]) + 1
            return web.json_response(self.logs[start : start + int(query.get("take", "50"))])
        since = query.get("q", "").removeprefix("date:[").partition(" TO ")[0]
        found = [entry for entry in self.logs if str(entry["date"]) >= since]
        ordered = sorted(found, key=lambda entry: str(entry["date"]), reverse=query.get("sort") == "date:-1")
        size, page = int(query.get("per_page", "50")), int(query.get("page", "0"))
        return web.json_response(ordered[page * size : (page + 1) * size])

    async def _events(self, http: web.Request, _asked: Any) -> web.StreamResponse:
        if not self.stream.knows(http):
            return _error(410, "Gone", "The offset has expired", "offset_expired")
        return await self.stream.serve(http)

    def _log_call(self, method: str, path: str, asked: Any, answered: Any, client: str) -> None:
        self.log(
            type="sapi",
            description=f"{method} {path.split('/')[3]}",
            client_id=client,
            details={
                "request": {"method": method, "path": path, "query": {}, "body": asked},
                "response": {"statusCode": 201 if method == "post" else 200, "body": answered},
            },
        )

    def _time(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _error(status: int, error: str, message: str, code: str) -> web.Response:
    return web.json_response(
        {"statusCode": status, "error": error, "message": message, "errorCode": code}, status=status
    )


def _no_user() -> web.Response:
    return _error(404, "Not Found", "The user does not exist.", "inexistent_user")

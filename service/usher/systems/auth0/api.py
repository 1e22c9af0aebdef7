"""The client of Auth0's Management API: look-ups of users, the flag that requires a new password, tickets, and the feeds' calls.

Hides the rate limit: calls stop before it is used up, as Auth0 reports it, so that a burst waits and does not fail.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import aiohttp

from usher.event import Event, User
from usher.http import Answer, asked_wait
from usher.outcome import Hold, NoAddress, Reject, Retry, Skip
from usher.system import PasswordLink
from usher.systems.api import ApiClient, BaseApi, Token, no_user
from usher.systems.auth0.values import dict_in, user_of
from usher.systems.canonical import moment, read_user, text

_AT_ONCE = 5
"""Calls at a time: more of them would all meet a rate limit that is used up."""
_QUEUE = 10.0
"""Seconds that a call waits for its turn. The handler's timeout runs meanwhile, so after them the delivery waits instead."""
_LONGEST_LIMIT = 60.0
"""Seconds until a limit is over at the latest, even if a wrong clock says otherwise."""
_FEED_SCOPES = {"events": "read:events", "logs": "read:logs"}
_ACTION_SCOPES = {
    "update:users": "force_password_change, clear_reset_flag",
    "create:user_tickets": "links to set a password",
}


class Auth0Api(BaseApi):
    """The client of one tenant's API.

    Args:
        domain: the tenant's own; names the tenant, and is in the audience of its tokens.
        client_id: the id of the machine-to-machine application.
        client_secret: its secret.
        base_url: the address of the API.
        session: gives the pooled HTTP session.
        settings_prefix: the beginning of the settings' names, for reasons.
        feeds: the feeds that are polled: ``events``, ``logs``.
        reset_flag: the key in ``app_metadata`` that requires a new password.
        app_client_id: the application that users log in to.
        link_expires_after: seconds that a link works.
        now: gives Unix seconds.
    """

    def __init__(
        self,
        domain: str,
        *,
        client_id: str,
        client_secret: str,
        base_url: str,
        session: Callable[[], aiohttp.ClientSession],
        settings_prefix: str = "USHER_AUTH0__",
        feeds: Sequence[str] = (),
        reset_flag: str = "needsPasswordReset",
        app_client_id: str | None = None,
        link_expires_after: float = 432_000.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.domain = domain
        self.what = f"Auth0 (tenant {domain})"
        hint = f"{settings_prefix}CLIENT_ID, {settings_prefix}CLIENT_SECRET and the application's permissions in Auth0"
        self._api = ApiClient(self.what, base_url, session, fetch_token=self._fetch_token, hint=hint)
        self._client_id, self._client_secret = client_id, client_secret
        self._feeds = feeds
        self._flag, self._since = reset_flag, f"{reset_flag}Since"
        self._app_client_id = app_client_id
        self._link_expires_after = int(link_expires_after)
        self._now = now
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._limited_until = 0.0
        self._scopes: frozenset[str] = frozenset()

    async def check(self) -> str:
        """Prove address, credentials and permissions. Feeds need their permissions; missing ones for actions are only reported."""
        await self._api.token(fresh=True)
        await self.call("GET", "/api/v2/users", params={"per_page": "1", "fields": "user_id"})
        if not self._scopes:
            return f"{self.domain} takes our credentials"
        lacking = [scope for feed in self._feeds if (scope := _FEED_SCOPES[feed]) not in self._scopes]
        if lacking:
            raise Reject(f"{self.what} has not granted {', '.join(lacking)}, which polling needs; see docs/auth0.md")
        idle = [f"{scope} ({use})" for scope, use in _ACTION_SCOPES.items() if scope not in self._scopes]
        rest = f"; not granted: {', '.join(idle)}" if idle else ""
        return f"{self.domain} takes our credentials{rest}"

    async def user(self, event: Event) -> User:
        return read_user(user_of(await self._profile(event)))

    async def require_password_change(self, event: Event) -> None:
        """`IdentitySystem.require_password_change`: set the flag that the post-login Action reads.

        Raises:
            Skip: the user has no password in Auth0, or has set a new one since the event.
        """
        profile = await self._profile(event)
        _connection(profile)
        happened = self._now() if event.time is None else event.time.timestamp()
        made, changed = moment(profile.get("created_at")), _changed(profile)
        if event.type == "user.created" and made is not None:
            happened = min(happened, made)
        if changed is not None and changed > happened:
            raise Skip("the user has set a new password since")
        mark = datetime.fromtimestamp(happened, UTC).isoformat(timespec="milliseconds")
        metadata = dict_in(profile, "app_metadata")
        if metadata.get(self._flag) is not True or (moment(metadata.get(self._since)) or 0.0) < (moment(mark) or 0.0):
            await self._set_metadata(event, profile, {self._flag: True, self._since: mark})

    async def clear_password_change(self, event: Event) -> None:
        """`IdentitySystem.clear_password_change`: take the flag back.

        Auth0's own time of the last change decides, as in the Action, where it is known: an entry about an administrator's own
        change may be dated later than that change. So no interval is needed in which a user's change would be overlooked.

        Raises:
            Skip: no password was set since it was required.
        """
        profile = await self._profile(event)
        metadata = dict_in(profile, "app_metadata")
        if not metadata.get(self._flag):
            return
        since, changed = moment(metadata.get(self._since)), _changed(profile)
        if changed is None and event.time is not None:
            changed = event.time.timestamp()
        if since is not None and changed is not None and since > changed:
            raise Skip("a new password was required after this change")
        await self._set_metadata(event, profile, {self._flag: False})

    async def password_link(self, event: Event) -> PasswordLink:
        asked: dict[str, Any] = {"user_id": await self._subject(event), "ttl_sec": self._link_expires_after}
        if self._app_client_id is not None:
            asked["client_id"] = self._app_client_id
        expires_at = datetime.fromtimestamp(self._now(), UTC) + timedelta(seconds=self._link_expires_after)
        answer = await self.call("POST", "/api/v2/tickets/password-change", json=asked)
        url = text(self._document(answer, "a password link", event).get("ticket"))
        if url is None:
            raise Retry(f"{self.what} answered without a ticket")
        return PasswordLink(url, expires_at)

    async def send_password_reset(self, event: Event) -> None:
        profile = await self._profile(event)
        asked = {
            "client_id": self._app_client_id or self._client_id,
            "email": text(profile.get("email")),
            "connection": _connection(profile),
        }
        if asked["email"] is None:
            raise NoAddress("the user has no email address in Auth0")
        answer = await self._api.ask("POST", "/dbconnections/change_password", json=asked)
        if answer.status != 200:
            raise Reject(f"{self.what} sends no reset mail ({_code(answer)}); is USHER_AUTH0__APP_CLIENT_ID set?")

    async def call(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None
    ) -> Answer:
        """Call the Management API within its rate limit.

        Raises:
            Retry, Hold: it may work later.
        """
        try:
            async with asyncio.timeout(_QUEUE):
                await self._turns.acquire()
        except TimeoutError:
            raise Hold(f"{self.what}: too many calls wait for their turn", after=_QUEUE) from None
        try:
            wait = self._limited_until - self._now()
            if wait > 0:
                raise Hold(f"{self.what}: its rate limit is used up", after=wait)
            answer = await self._api.call(method, path, json=json, params=params)
        except Retry as refusal:
            self._limited_until = self._now() + (refusal.after or 0.0)
            raise
        finally:
            self._turns.release()
        if answer.headers.get("X-RateLimit-Remaining") == "0" and (rest := asked_wait(answer.headers, self._now())):
            self._limited_until = self._now() + min(rest, _LONGEST_LIMIT)
        return answer

    async def events(self, params: Sequence[tuple[str, str]], silence: float) -> aiohttp.ClientResponse:
        """Begin to read the Events API; the caller closes it.

        Raises:
            Retry, Hold: it may work later.
        """
        headers = {"accept": "text/event-stream"}
        return await self._api.stream("/api/v2/events", params=params, headers=headers, silence=silence)

    async def _fetch_token(self) -> Token:
        asked = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
            "audience": f"https://{self.domain}/api/v2/",
        }
        answer = await self._api.ask("POST", "/oauth/token", json=asked)
        if answer.status != 200:
            self._api.refused(answer.status)
        document = answer.document if isinstance(answer.document, dict) else {}
        token, seconds = text(document.get("access_token")), document.get("expires_in")
        if token is None or not isinstance(seconds, int | float):
            raise Retry(f"{self.what} answered without a token")
        self._scopes = frozenset((text(document.get("scope")) or "").split())
        return Token(token, float(seconds))

    async def _profile(self, event: Event) -> Mapping[str, Any]:
        return self._document(await self.call("GET", _path(await self._subject(event))), "the user", event)

    async def _set_metadata(self, event: Event, profile: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        answer = await self.call("PATCH", _path(str(profile["user_id"])), json={"app_metadata": metadata})
        self._document(answer, "a change of app_metadata", event)

    async def _subject(self, event: Event) -> str:
        """Find the id of the event's user. If a log entry names only an address, it is the user with a password under that address."""
        subject = event.user.id or event.context.user_id
        if subject is not None:
            return subject
        if event.user.email is None:
            raise Reject("the event does not say which user it is about")
        answer = await self.call("GET", "/api/v2/users-by-email", params={"email": event.user.email.lower()})
        profiles = answer.document if answer.status == 200 and isinstance(answer.document, list) else []
        ids = [profile["user_id"] for profile in profiles if isinstance(profile, dict) and _has_password(profile)]
        if not ids:
            raise Skip(f"{self.what} has no user with a password under the event's address, and no id is in it")
        if len(ids) > 1:
            raise Reject(f"{self.what} has {len(ids)} users under the event's address, and no id is in it")
        return str(ids[0])

    def _document(self, answer: Answer, thing: str, event: Event) -> Mapping[str, Any]:
        if answer.status == 404:
            raise no_user(event, self.what, self._now())
        if answer.status >= 300 or not isinstance(answer.document, dict):
            raise Reject(f"{self.what} refuses {thing} ({_code(answer)})")
        return answer.document


def _path(user_id: str) -> str:
    return f"/api/v2/users/{quote(user_id, safe='')}"


def _connection(profile: Mapping[str, Any]) -> str:
    """Find the database connection that holds the user's password.

    Raises:
        Skip: there is none: the user signs in elsewhere.
    """
    identities = profile.get("identities")
    for identity in identities if isinstance(identities, list) else ():
        if isinstance(identity, dict) and identity.get("provider") == "auth0" and text(identity.get("connection")):
            return str(identity["connection"])
    raise Skip("the user has no password in Auth0, and signs in elsewhere")


def _changed(profile: Mapping[str, Any]) -> float | None:
    """Read when the password was last set, in Unix seconds; None: never since the user's creation."""
    return moment(profile.get("last_password_reset"))


def _has_password(profile: Mapping[str, Any]) -> bool:
    return (text(profile.get("user_id")) or "").startswith("auth0|")


def _code(answer: Answer) -> str:
    """Name the status and Auth0's code for it; Auth0's message is left out, since it may quote a user's address."""
    document = answer.document if isinstance(answer.document, dict) else {}
    code = text(document.get("errorCode")) or text(document.get("code"))
    return f"{answer.status} {code}" if code else str(answer.status)

"""The client of Keycloak's admin REST API: look-ups of users, the required action UPDATE_PASSWORD, and the admin events."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import aiohttp

from usher.event import Event, User
from usher.http import Answer
from usher.outcome import Hold, NoAddress, Reject, Retry, Skip
from usher.systems.api import ApiClient, BaseApi, Token, no_user
from usher.systems.canonical import read_user, text
from usher.systems.keycloak.changes import belongs_to, changed_type, is_in_doubt, is_users_own, without_state
from usher.systems.keycloak.source import OUR_MARK, REQUESTED, KeycloakSource
from usher.systems.source import Arrival
from usher.systems.source import arrival as arrival_of

_UPDATE_PASSWORD = "UPDATE_PASSWORD"  # noqa: S105 - the name of a required action
_MOST_FOUND = 2_000
"""Events whose type was looked up and is kept."""
_SLACK = 10.0
"""Seconds within which an event and the creation of a password count as simultaneous."""


class KeycloakApi(BaseApi):
    """The client of one realm's API.

    Args:
        url: the server's, without a slash at its end.
        realm: the realm's name.
        client_id: a confidential client with a service account.
        client_secret: its secret.
        session: gives the pooled HTTP session.
        source: reads users as it reads events.
        settings_prefix: the beginning of the settings' names, for reasons.
        polls: whether the admin events are needed.
    """

    def __init__(
        self,
        url: str,
        realm: str,
        *,
        client_id: str,
        client_secret: str,
        session: Callable[[], aiohttp.ClientSession],
        source: KeycloakSource,
        settings_prefix: str = "USHER_KEYCLOAK__",
        polls: bool = False,
    ) -> None:
        self.realm = realm
        self.what = f"Keycloak (realm {realm})"
        hint = f"{settings_prefix}URL, …REALM, …CLIENT_ID, …CLIENT_SECRET, and the roles of its service account"
        self._api = ApiClient(self.what, url, session, fetch_token=self._fetch_token, hint=hint)
        self._client_id, self._client_secret = client_id, client_secret
        self._source, self._polls = source, polls
        self._found: dict[str, str] = {}
        realm = quote(realm, safe="")
        self._token_path = f"/realms/{realm}/protocol/openid-connect/token"
        self._path = f"/admin/realms/{realm}"

    async def check(self) -> str:
        """Prove address, credentials and rights; if admin events are polled, also that the realm keeps them."""
        await self._api.token(fresh=True)
        self._accept(await self._api.call("GET", f"{self._path}/users", params={"max": "1"}), "a look-up of users")
        accepted = f"realm {self.realm} takes our credentials"
        if not self._polls:
            return accepted
        await self.admin_events(0, 1)
        answer = await self._api.call("GET", f"{self._path}/events/config")
        self._accept(answer, "the settings of its events")
        config = answer.document if isinstance(answer.document, dict) else {}
        if config.get("adminEventsEnabled") is not True:
            raise Reject(f"{self.what} keeps no admin events, and there is nothing to poll; see docs/keycloak.md")
        if config.get("adminEventsDetailsEnabled") is not True:
            return f"{accepted}; its admin events lack the representation, so that no password.expired is seen"
        return f"{accepted}, and keeps admin events"

    async def user(self, event: Event) -> User:
        if event.user.id is None:
            return event.user
        found = await self._user(event)
        return read_user({"id": event.user.id, **self._source.user_fields(found)})

    async def require_password_change(self, event: Event) -> None:
        required = _required(await self._user(event))
        if _UPDATE_PASSWORD not in required:
            await self._require(event, [*required, _UPDATE_PASSWORD])

    async def clear_password_change(self, event: Event) -> None:
        """`IdentitySystem.clear_password_change`. Keycloak does it by itself when it has made the user change the password.

        Raises:
            Skip: another password was set since the event.
        """
        required = _required(await self._user(event))
        if _UPDATE_PASSWORD not in required:
            return
        if event.time is not None and await self._password_time(event) > event.time.timestamp() + _SLACK:
            raise Skip("another password was set since")
        await self._require(event, [action for action in required if action != _UPDATE_PASSWORD])

    async def send_password_reset(self, event: Event) -> None:
        if text((await self._user(event)).get("email")) is None:
            raise NoAddress("the user has no email address in Keycloak")
        path = f"{self._user_path(event)}/execute-actions-email"
        self._accept(await self._api.call("PUT", path, json=[_UPDATE_PASSWORD]), "to send its mail", event)

    async def recognize(self, arrival: Arrival) -> Arrival:
        """`usher.systems.system.System.enrich`: find out what an update has changed, and whether Usher itself had Keycloak send its mail.

        That is marked: else a handler that has the mail sent for every such event would trigger itself for ever.

        Raises:
            Retry, Hold: it can't be known now.
        """
        event = arrival.event
        if event is not None and event.type == REQUESTED:
            await self._api.token()
        if event is not None and is_in_doubt(event):
            type_ = self._found.get(event.id) or await self._changed(event)
            self._remember(event.id, type_)
            arrival = arrival if type_ == event.type else arrival_of(replace(event, type=type_))
        return self._source.recognized(arrival)

    async def admin_events(self, first: int, most: int) -> Sequence[Mapping[str, Any]]:
        """Read what admins did, newest first, from number *first* on; at most *most* events.

        Also what is not about users: Keycloak writes partial imports of users under another resource type, or under none.

        Raises:
            Retry, Hold: it may work later.
        """
        params = {"first": str(first), "max": str(most)}
        answer = await self._api.call("GET", f"{self._path}/admin-events", params=params)
        if answer.status != 200 or not isinstance(answer.document, list):
            raise Retry(f"{self.what} answered without admin events ({answer.status})")
        return [item for item in answer.document if isinstance(item, dict)]

    async def _changed(self, event: Event) -> str:
        """Look up what an update that is in doubt has changed: return its type."""
        known = await self._known_events("admin-events", {"resourcePath": f"users/{event.user.id}*", "max": "100"})
        set_at = await self._last_password(event)
        if belongs_to(event, set_at) and await self._is_users_own(event, set_at, known):
            set_at = 0.0
        return changed_type(event, known, set_at, self._source.change_of(without_state(event)))

    def _remember(self, event_id: str, type_: str) -> None:
        """Keep what was found: the feed reads the last minutes again and again."""
        self._found[event_id] = type_
        if len(self._found) > _MOST_FOUND:
            del self._found[next(iter(self._found))]

    async def _is_users_own(self, event: Event, set_at: float, known: Sequence[Mapping[str, Any]]) -> bool:
        """Ask whether the user set the password of that time, and no administrator."""
        own = await self._known_events("events", {"user": event.user.id or "", "max": "20"})
        try:
            created = (await self._user(event)).get("createdTimestamp")
        except (Skip, Reject, Hold):
            created = None
        return is_users_own(set_at, created, known, own)

    async def _known_events(self, which: str, params: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
        """Read the latest events that are about a user; none where the realm keeps none, or we may not see them."""
        try:
            answer = await self._api.call("GET", f"{self._path}/{which}", params=params)
        except Hold:
            return ()
        found = answer.document if answer.status == 200 and isinstance(answer.document, list) else []
        return [item for item in found if isinstance(item, dict)]

    async def _last_password(self, event: Event) -> float:
        """Ask when the password was set, in Unix seconds; 0 where that can't be known."""
        try:
            return await self._password_time(event)
        except (Skip, Reject, Hold):
            return 0.0

    async def _fetch_token(self) -> Token:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
        }
        answer = await self._api.ask("POST", self._token_path, form=form)
        if answer.status != 200:
            self._api.refused(answer.status)
        document = answer.document if isinstance(answer.document, dict) else {}
        token, seconds = text(document.get("access_token")), document.get("expires_in")
        if token is None or not isinstance(seconds, int | float):
            raise Retry(f"{self.what} answered without a token")
        if account := _account(token):
            self._source.own_accounts.add(account)
        return Token(token, float(seconds))

    async def _user(self, event: Event) -> Mapping[str, Any]:
        answer = await self._api.call("GET", self._user_path(event))
        self._accept(answer, "a look-up of the user", event)
        if not isinstance(answer.document, dict):
            raise Retry(f"{self.what} answered without a user")
        return answer.document

    async def _require(self, event: Event, actions: Sequence[str]) -> None:
        """Set the required actions: Keycloak replaces all of them by the list, and leaves other fields unchanged."""
        answer = await self._api.call("PUT", self._user_path(event), json={"requiredActions": actions, **OUR_MARK})
        self._accept(answer, "a change of the required actions", event)

    async def _password_time(self, event: Event) -> float:
        """Ask when the password was set, in Unix seconds."""
        answer = await self._api.call("GET", f"{self._user_path(event)}/credentials")
        self._accept(answer, "a look at the credentials' dates", event)
        found = answer.document if isinstance(answer.document, list) else []
        dates = [item.get("createdDate") for item in found if isinstance(item, dict) and item.get("type") == "password"]
        return max((date / 1000 for date in dates if isinstance(date, int)), default=0.0)

    def _user_path(self, event: Event) -> str:
        if event.user.id is None:
            raise Reject("the event does not say which user it is about")
        return f"{self._path}/users/{quote(event.user.id, safe='')}"

    def _accept(self, answer: Answer, thing: str, event: Event | None = None) -> None:
        """Return where *answer* is a success; *event*: the call was about its user."""
        if answer.status == 404 and event is not None:
            raise no_user(event, self.what)
        if answer.status >= 300:
            raise Reject(f"{self.what} refuses {thing} ({answer.status})")


def _account(token: str) -> str | None:
    """Read the id of the user that a token is for: its subject. Keycloak itself gave us the token, so it needs no proof."""
    try:
        _, claims, _ = token.split(".")
        document = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    except ValueError:
        return None
    return text(document.get("sub")) if isinstance(document, dict) else None


def _required(user: Mapping[str, Any]) -> list[str]:
    actions = user.get("requiredActions")
    return [action for action in actions if isinstance(action, str)] if isinstance(actions, list) else []

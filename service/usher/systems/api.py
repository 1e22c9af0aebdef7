"""Calls to an identity system's API, and what their failures mean for the delivery. Hides HTTP and tokens.

Any 5xx, no answer, and 429 (with the wait it asks for) lead to another attempt. Refused credentials are the operator's to
mend: they count no attempt. Any other refusal is final.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

import aiohttp

from usher.event import Event, User
from usher.http import Answer, asked_wait, read_body
from usher.outcome import Hold, Outcome, Reject, Retry, Skip
from usher.system import PasswordLink

_PATIENCE = aiohttp.ClientTimeout(total=20, connect=10)
_MOST = 4 * 1024 * 1024
"""Bytes of an answer that are read."""
_REFUSED = 60.0
"""Seconds until credentials that were refused are tried again."""
_EARLY = 30.0
"""Seconds before the end of a token from which on it is not used any more."""
_LONGEST_WAIT = 3600.0
_NOT_YET = 60.0
"""Seconds from the creation of a user in which the system may not show the user yet: it may report before it commits."""


class Token(NamedTuple):
    """A bearer token, and the seconds that it is valid."""

    text: str
    seconds: float


@dataclass(slots=True)
class ApiClient:
    """The HTTP client of one system's API.

    Args:
        what: names it in reasons, as in ``Keycloak (realm shop)``.
        base_url: without a slash at its end.
        session: gives the pooled HTTP session; called for each request.
        fetch_token: gets a token; it is kept until shortly before its end. None: the API needs none.
        hint: the settings to look at if credentials are refused.
        clock: monotonic seconds.
    """

    what: str
    base_url: str
    session: Callable[[], aiohttp.ClientSession] = field(repr=False)
    fetch_token: Callable[[], Awaitable[Token]] | None = field(default=None, repr=False)
    hint: str = ""
    clock: Callable[[], float] = time.monotonic
    _token: str | None = field(default=None, init=False, repr=False)
    _ends: float = field(default=0.0, init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call with our token. If it is refused, fetch a new one and call again, once. The answer is below 500, and no 401, 403 or 429.

        Raises:
            Retry, Hold: it may work later.
        """
        for fresh in (False, True):
            own = dict(headers or {})
            if self.fetch_token is not None:
                own["authorization"] = f"Bearer {await self.token(fresh=fresh)}"
            answer = await self.ask(method, path, json=json, params=params, headers=own)
            if answer.status != 401 or self.fetch_token is None:
                break
        if answer.status in (401, 403):
            self.refused(answer.status)
        return answer

    async def ask(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call once, without a token; 401 and 403 are ordinary answers here.

        Raises:
            Retry: no answer, 5xx or 429.
        """
        try:
            async with self.session().request(
                method, self.base_url + path, json=json, data=form, params=params, headers=headers,
                timeout=_PATIENCE, allow_redirects=False,
            ) as response:  # fmt: skip
                self._check(Answer(response.status, response.headers))
                return Answer(response.status, response.headers, await read_body(response, _MOST))
        except (aiohttp.ClientError, TimeoutError, OSError) as trouble:
            raise self._unreachable(trouble) from None

    async def stream(
        self, path: str, *, params: Sequence[tuple[str, str]], headers: Mapping[str, str], silence: float
    ) -> aiohttp.ClientResponse:
        """Begin to read an answer that has no end; the caller closes it. *silence*: seconds without a byte that end it.

        Raises:
            Retry, Hold: it may work later.
        """
        patience = aiohttp.ClientTimeout(total=None, connect=10, sock_read=silence)
        for fresh in (False, True):
            own = {**headers, "authorization": f"Bearer {await self.token(fresh=fresh)}"}
            try:
                response = await self.session().get(
                    self.base_url + path, params=params, headers=own, timeout=patience, allow_redirects=False
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as trouble:
                raise self._unreachable(trouble) from None
            if response.status == 200:
                return response
            response.close()
            self._check(Answer(response.status, response.headers))
            if response.status != 401:
                break
        if response.status in (401, 403):
            self.refused(response.status)
        return response

    def _unreachable(self, trouble: Exception) -> Retry:
        """Make the reason for a call without an answer. *trouble*'s own text may hold the URL, and with it a user's id or address."""
        why = type(trouble).__name__
        if isinstance(trouble, aiohttp.ClientConnectorDNSError):
            why = "there is no such host"
        elif isinstance(trouble, aiohttp.ClientConnectorCertificateError):
            why = "its certificate is not trusted"
        elif isinstance(trouble, aiohttp.ClientSSLError):
            why = "no TLS connection could be made"
        elif isinstance(trouble, TimeoutError):
            why = "no answer in time"
        elif isinstance(trouble, aiohttp.ClientHttpProxyError):
            why = f"the proxy answered {trouble.status}"
        elif isinstance(trouble, aiohttp.ClientConnectorError) and trouble.errno:
            by = "the proxy: " if isinstance(trouble, aiohttp.ClientProxyConnectionError) else ""
            why = by + os.strerror(trouble.errno)
        return Retry(f"{self.what} could not be reached at {urlsplit(self.base_url).netloc.rpartition('@')[2]}: {why}")

    def _check(self, answer: Answer) -> None:
        if answer.status >= 500:
            raise Retry(f"{self.what} answered {answer.status}", after=_wait(answer))
        if answer.status == 429:
            raise Retry(f"{self.what} says that we call too often", after=_wait(answer))

    def refused(self, status: int) -> NoReturn:
        """Raise that our credentials are refused, or lack a right. No attempt is counted for that.

        Raises:
            Hold
        """
        self._token = None
        raise Hold(f"{self.what} refuses our credentials ({status}); see {self.hint}", after=_REFUSED)

    async def token(self, *, fresh: bool = False) -> str:
        """Return a valid token. `fetch_token` gives a new one if there is none, or if *fresh*.

        Raises:
            Retry, Hold: there is no token now.
        """
        async with self._turn:
            if fresh or self._token is None or self.clock() >= self._ends:
                assert self.fetch_token is not None  # noqa: S101
                token = await self.fetch_token()
                self._token, self._ends = token.text, self.clock() + max(token.seconds - _EARLY, token.seconds / 2)
            return self._token


class BaseApi:
    """The base of every system's client. It refuses, with the reason, each call that a system does not offer."""

    what = "this identity system"

    async def user(self, event: Event) -> User:  # noqa: ARG002
        self._lacks("a look-up of users")

    async def require_password_change(self, event: Event) -> None:  # noqa: ARG002
        self._lacks("a way to require a new password at the next login")

    async def clear_password_change(self, event: Event) -> None:  # noqa: ARG002
        self._lacks("a flag to clear: it removes the flag by itself once the password was changed")

    async def password_link(self, event: Event) -> PasswordLink:  # noqa: ARG002
        self._lacks("a link that we could send")

    async def send_password_reset(self, event: Event) -> None:  # noqa: ARG002
        self._lacks("a reset message of its own")

    def _lacks(self, thing: str) -> NoReturn:
        raise Reject(f"{self.what} does not have {thing}")


def no_user(event: Event, what: str, now: float | None = None) -> Outcome:
    """Make the outcome of a call that found no user in the system *what*: a `Retry` right after the user's creation, else a `Skip`.

    *now* is in Unix seconds; None: by our clock.
    """
    made = event.context.timestamp if event.type == "user.created" else None
    if made is not None and abs((time.time() if now is None else now) - made) < _NOT_YET:
        return Retry(f"{what} does not show the new user yet")
    return Skip(f"{what} has no such user (any more)")


def _wait(answer: Answer) -> float | None:
    """Read the wait that an answer asks for, at most an hour: a feed must not sleep for a day because of one answer."""
    wait = asked_wait(answer.headers, time.time())
    return None if wait is None else min(wait, _LONGEST_WAIT)

"""A loopback server with the APIs of SendGrid and Twilio. It keeps the messages it accepts, and fails on demand.

    async with FakeProviders(outbox=folder) as fake:
        fake.script(answer(503), HANG)          # for the next two requests; then it works
        ... SendGrid(transport, api_key=fake.sendgrid_api_key, base_url=fake.url)

As a process: ``python -m usher.testing.providers --outbox DIR`` prints one JSON line with its URL and credentials.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from uuid import uuid4

from aiohttp import web

from usher.channels import mime, outbox
from usher.testing import wire
from usher.testing.server import DROP, HANG, RESET, Fault, LoopbackServer, answer, went
from usher.testing.wire import Provider, Reply, Request

ACCOUNT_SID = "AC" + "0f" * 16
AUTH_TOKEN = "fake-twilio-auth-token"
API_KEY = "SG.fake-sendgrid-api-key"
TWILIO_API_KEY = "SK" + "0f" * 16
TWILIO_API_KEY_SECRET = "fake-twilio-api-key-secret"
TWILIO_FROM = "+15005550006"

__all__ = [
    "ACCOUNT_SID",
    "API_KEY",
    "AUTH_TOKEN",
    "DROP",
    "HANG",
    "RESET",
    "TWILIO_API_KEY",
    "TWILIO_API_KEY_SECRET",
    "TWILIO_FROM",
    "FakeProviders",
    "Fault",
    "Rule",
    "Seen",
    "answer",
]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request and what became of it: *answered* is the status, or the fault that left it without an answer.

    *id* is the one that the message got when it was accepted; empty: it was not.
    """

    request: Request
    answered: int | str
    id: str = ""

    @property
    def accepted(self) -> bool:
        return bool(self.id)


Rule = Callable[[Request], Fault | None]


class FakeProviders(LoopbackServer):
    """Serves SendGrid and Twilio, as an async context manager. *seen* lists every request in order.

    Args:
        outbox: the folder that accepted messages are written to; None: nothing is written.
        rule: gives the fault for each request for which the script has none.
        refused: addresses and numbers that are answered with 400; may be changed at any time.
        slow: seconds before each answer; may be changed at any time.
        port: on 127.0.0.1; 0 lets the system choose.
    """

    def __init__(
        self,
        *,
        outbox: Path | None = None,
        rule: Rule | None = None,
        refused: Iterable[str] = (),
        slow: float = 0.0,
        port: int = 0,
    ) -> None:
        super().__init__(slow=slow, port=port)
        self.sendgrid_api_key = API_KEY
        self.twilio_account_sid = ACCOUNT_SID
        self.twilio_auth_token = AUTH_TOKEN
        self.twilio_api_key = TWILIO_API_KEY
        self.twilio_api_key_secret = TWILIO_API_KEY_SECRET
        self.twilio_from = TWILIO_FROM
        self.rule = rule
        self.refused = set(refused)
        self.seen: list[Seen] = []
        self._outbox = outbox
        self.arrived = 0
        """How many requests have come, answered or not."""

    @property
    def accepted(self) -> list[Request]:
        """The requests whose messages were accepted, in order."""
        return [seen.request for seen in self.seen if seen.accepted]

    @property
    def _twilio_logins(self) -> frozenset[str]:
        return frozenset(
            {
                f"{self.twilio_account_sid}:{self.twilio_auth_token}",
                f"{self.twilio_api_key}:{self.twilio_api_key_secret}",
            }
        )

    async def wait_seen(self, count: int) -> None:
        """Return once at least *count* requests were answered or failed (one that hangs counts when it has come)."""
        await self.wait(lambda: len(self.seen) >= count)

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/v3/mail/send", self._sendgrid)
        router.add_post("/2010-04-01/Accounts/{sid}/Messages.json", self._twilio)
        router.add_get("/_/seen", self._list)
        router.add_put("/_/refused/{address}", self._refuse)
        router.add_delete("/_/refused/{address}", self._allow)

    async def _sendgrid(self, http: web.Request) -> web.Response:
        return await self._serve("sendgrid", http)

    async def _twilio(self, http: web.Request) -> web.Response:
        if http.match_info["sid"] != self.twilio_account_sid:
            return _http(wire.twilio_error(404, 20404, f"The requested resource {http.path} was not found"))
        return await self._serve("twilio", http)

    async def _serve(self, provider: Provider, http: web.Request) -> web.Response:
        self.arrived += 1
        request = wire.read(self.arrived, provider, http.headers, await http.read())
        fault = await self._next_fault() or (self.rule(request) if self.rule else None)
        if fault is None or fault.how == "drop":
            reply, id_ = self._judge(request)
        elif fault.how == "answer":
            reply, id_ = _faulty(provider, fault), ""
        else:
            reply, id_ = Reply(0), ""
        self.seen.append(Seen(request, went(fault, reply.status), id_))
        await self._settle(http, fault, reply.status)
        return _http(reply)

    def _judge(self, request: Request) -> tuple[Reply, str]:
        """Answer *request*. Returns the answer, and the id of the message where it is accepted."""
        refused = frozenset(self.refused)
        if request.provider == "sendgrid":
            refusal = wire.sendgrid_refusal(request, self.sendgrid_api_key, refused)
        else:
            refusal = wire.twilio_refusal(request, self._twilio_logins, refused)
        return (refusal, "") if refusal is not None else self._accept(request)

    def _accept(self, request: Request) -> tuple[Reply, str]:
        now = datetime.now(UTC)
        if request.provider == "sendgrid":
            mail = wire.sendgrid_mail(request)
            self._keep(mime.safe_key(mail.idempotency_key), ".eml", mime.build(mail, now))
            id_ = uuid4().hex
            return wire.sendgrid_accepted(id_), id_
        sid = "SM" + uuid4().hex
        self._keep(sid, ".txt", outbox.as_file(wire.twilio_sms(request, sid)))
        return wire.twilio_accepted(request, sid, self.twilio_account_sid, format_datetime(now)), sid

    def _keep(self, name: str, suffix: str, content: bytes) -> None:
        if self._outbox is None:
            return
        path, copies = self._outbox / f"{name}{suffix}", 1
        while path.exists():  # unlike our own outbox, a provider sends a repeat: it must not go unseen
            copies += 1
            path = self._outbox / f"{name}-{copies}{suffix}"
        outbox.write(path, content)

    async def _list(self, _http: web.Request) -> web.Response:
        return web.json_response(
            [
                {
                    "number": seen.request.number,
                    "provider": seen.request.provider,
                    "to": seen.request.to,
                    "answered": seen.answered,
                    "accepted": seen.accepted,
                    "id": seen.id,
                }
                for seen in self.seen
            ]
        )

    async def _refuse(self, http: web.Request) -> web.Response:
        self.refused.add(http.match_info["address"])
        return web.Response(status=204)

    async def _allow(self, http: web.Request) -> web.Response:
        self.refused.discard(http.match_info["address"])
        return web.Response(status=204)


def _faulty(provider: Provider, fault: Fault) -> Reply:
    if fault.body is not None:
        return Reply(fault.status, fault.body, fault.headers)
    body = wire.error(provider, fault.status).body if fault.status >= 400 else b""
    return Reply(fault.status, body, fault.headers)


def _http(reply: Reply) -> web.Response:
    headers = {"Content-Type": "application/json", **dict(reply.headers)} if reply.body else dict(reply.headers)
    return web.Response(status=reply.status or 500, body=reply.body, headers=headers)


def _faults(first: int, every: int) -> Rule:
    """Return a rule: 503 for the first *first* requests, and for every *every*-th (0: none)."""

    def rule(request: Request) -> Fault | None:
        due = request.number <= first or (every > 0 and request.number % every == 0)
        return answer(503) if due else None

    return rule


async def _main(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fake = FakeProviders(
        outbox=options.outbox,
        rule=_faults(options.fail_first, options.fail_every),
        refused=options.refuse,
        port=options.port,
    )
    async with fake:
        access = {
            "url": fake.url,
            "sendgrid_api_key": fake.sendgrid_api_key,
            "twilio_account_sid": fake.twilio_account_sid,
            "twilio_auth_token": fake.twilio_auth_token,
            "twilio_from": fake.twilio_from,
        }
        sys.stdout.write(json.dumps(access) + "\n")
        sys.stdout.flush()
        await stop.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m usher.testing.providers", description="Fake SendGrid and Twilio.")
    parser.add_argument("--outbox", type=Path, help="write accepted messages into this folder")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0: any (default)")
    parser.add_argument("--fail-first", type=int, default=0, metavar="N", help="answer the first N requests with 503")
    parser.add_argument("--fail-every", type=int, default=0, metavar="N", help="answer every Nth request with 503")
    parser.add_argument(
        "--refuse",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="answer 400 for this recipient, until DELETE /_/refused/ADDRESS; may be repeated",
    )
    return parser


if __name__ == "__main__":
    asyncio.run(_main(_parser().parse_args()))

"""The service as a process on the embedded log: webhooks, signals, kill -9, and what may not be found in its logs."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine import until
from tests.service import Service, environment, running, usher

from usher.testing.providers import FakeProviders, answer

SECRET = "current"
PEOPLE = ("ann.other@example.org", "+447400123456", "refused@example.org", "bob.other@example.org")


def _event(
    user: str,
    *,
    email: str = "",
    phone: str = "",
    by: str = "admin_api",
    type_: str = "user.created",
    id_: str = "",
    username: str = "",
) -> bytes:
    given = {"email": email, "phone_number": phone, "preferred_username": username}
    attributes = {name: value for name, value in given.items() if value}
    return json.dumps(
        {
            "id": id_ or hashlib.sha256(f"{user}{type_}".encode()).hexdigest()[:16],
            "seq": 1,
            "type": type_,
            "payload": {"user": {"id": user, "standard_attributes": attributes}},
            "context": {
                "timestamp": int(time.time()),
                "user_id": user,
                "triggered_by": by,
                "app_id": "demo",
                "language": "en",
            },
        }
    ).encode()


async def _send(service: Service, body: bytes, secret: str = SECRET) -> int:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return await service.post("/ingest/authgear", body, {"x-authgear-body-signature": signature})


def _env(**more: object) -> dict[str, str]:
    return environment(authgear__webhook_secret=f"older,{SECRET}", retry_delays="100ms,200ms", **more)


def _to(provider: FakeProviders) -> dict[str, str]:
    return _env(
        email="sendgrid",
        mail_from="a@example.org",
        sendgrid__api_key=provider.sendgrid_api_key,
        sendgrid__base_url=provider.url,
    )


async def test_a_signed_webhook_becomes_a_mail_and_a_stop_is_orderly(tmp_path: Path) -> None:
    """From a signed webhook to the outbox; SIGTERM ends with exit code 0, and a restart sends nothing again."""
    async with running(tmp_path, _env(), cold=True) as service:
        assert await _send(service, _event("ann", email=PEOPLE[0])) == 200
        assert await _send(service, _event("eve", email="eve@example.org"), secret="wrong") == 401
        assert await _send(service, _event("self", email="self@example.org", by="user")) == 200
        await service.line("message sent")
        assert (await service.get("/readyz"))[0] == 200
        assert (await service.get("/healthz"))[0] == 200
        metrics = (await service.get("/metrics"))[1]
        assert 'usher_attempts_total{handler="welcome_email",outcome="done"} 1.0' in metrics
        assert 'usher_ingested_total{outcome="bad-signature",source="authgear"} 1.0' in metrics
        assert await service.end() == 0
    (mail,) = (tmp_path / "outbox").glob("*.eml")
    before = mail.stat().st_mtime_ns
    async with running(tmp_path, _env()) as service:
        assert await _send(service, _event("bob", phone=PEOPLE[1])) == 200
        await service.line("message sent", handler="sms_notice")

    assert mail.stat().st_mtime_ns == before
    assert len(list((tmp_path / "outbox").glob("*.txt"))) == 1


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """An event that a webhook call was answered as stored is sent after a kill -9; the next start is ready within 20 seconds."""
    people = [f"person{number:02}@example.org" for number in range(40)]
    async with FakeProviders() as provider:
        env = _to(provider)
        async with running(tmp_path, env) as service:
            for number, address in enumerate(people):
                assert await _send(service, _event(f"u{number}", email=address)) == 200
            await provider.wait_seen(5)
            await service.end(signal.SIGKILL)
        killed = time.monotonic()
        async with running(tmp_path, env):
            assert time.monotonic() - killed < 20
            await until(lambda: {request.to for request in provider.accepted} == set(people))


async def test_one_stop_that_arrives_twice_is_one_stop(tmp_path: Path) -> None:
    """A terminal, `timeout` or an init may signal the process and its group in one moment: the stop is orderly all the same."""
    async with running(tmp_path, _env()) as service:
        service.process.send_signal(signal.SIGINT)
        service.process.send_signal(signal.SIGTERM)
        await service.line("stopped")

        assert await service.process.wait() == 0


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT], ids=lambda how: how.name
)
async def test_each_signal_that_ends_a_service_lets_it_end_in_order(tmp_path: Path, how: signal.Signals) -> None:
    """A terminal that closes and a supervisor that quits are stops like SIGTERM: a mail under way goes out once."""
    async with FakeProviders() as provider:
        provider.slow = 0.5
        async with running(tmp_path, _to(provider)) as service:
            assert await _send(service, _event("ann", email=PEOPLE[0])) == 200
            await provider.wait(lambda: provider.arrived)
            assert await service.end(how) == 0
        assert len(provider.accepted) == 1
        async with running(tmp_path, _to(provider)) as service:
            assert await _send(service, _event("bob", email=PEOPLE[3])) == 200
            await until(lambda: len(provider.accepted) > 1)

        assert [request.to for request in provider.accepted] == [PEOPLE[0], PEOPLE[3]]


async def test_a_parent_that_ignores_signals_keeps_only_the_hang_up(tmp_path: Path) -> None:
    """A script's background jobs inherit SIGINT and SIGQUIT ignored: those end the service all the same. `nohup` is kept."""
    script = "trap '' INT QUIT HUP; exec \"$0\" -m usher run"
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", script, sys.executable, cwd=tmp_path, env=_env(), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    while b'"ready"' not in await process.stderr.readline():
        pass
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    said = await process.stderr.read()

    assert await process.wait() == 0
    assert said.count(b'"stopping"') == 1


async def test_a_stop_ends_within_the_grace_also_where_a_handler_blocks_the_loop(tmp_path: Path) -> None:
    """The grace is watched beside the event loop: a handler that never gives it back can't hold up an orchestrator."""
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "stuck.py").write_text(
        "import time\nfrom usher import on\n\n\n@on('user.created')\nasync def stuck(event, ctx):\n"
        "    ctx.logger.warning('stuck')\n    time.sleep(600)\n"
    )
    env = _env(handlers_dir=tmp_path / "handlers", handlers="stuck", shutdown_grace="1s")
    async with running(tmp_path, env) as service:
        code, _, _ = await usher("emit", "-", cwd=tmp_path, env=env, stdin=_event("ann", email=PEOPLE[0]))
        assert code == 0
        await service.line("stuck")

        assert await service.end(within=20) == 1
        await service.line("the end took longer than the grace: leaving at once")


async def test_logging_decides_over_no_delivery(tmp_path: Path) -> None:
    """The reader of standard error has gone: messages go out all the same, and none of them again after a restart."""
    people = [f"person{number}@example.org" for number in range(4)]
    async with FakeProviders() as provider:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "usher", "run", cwd=tmp_path, env=_to(provider), stderr=asyncio.subprocess.PIPE
        )  # fmt: skip
        assert process.stderr is not None
        while b'"ready"' not in await process.stderr.readline():
            pass
        process._transport.get_pipe_transport(2).close()  # type: ignore[attr-defined]
        for address in people:
            await usher("emit", "-", cwd=tmp_path, env=_to(provider), stdin=_event(address, email=address))
        await until(lambda: len(provider.accepted) == len(people))
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        async with running(tmp_path, _to(provider)) as service:
            assert await _send(service, _event("last", email="last@example.org")) == 200
            await until(lambda: len(provider.accepted) > len(people))

        assert sorted(request.to for request in provider.accepted) == sorted([*people, "last@example.org"])


async def test_a_second_worker_on_the_same_file_refuses_to_start(tmp_path: Path) -> None:
    """The embedded log has one worker: the second says so and ends with exit code 1."""
    async with running(tmp_path, _env()):
        code, out, err = await usher("run", cwd=tmp_path, env=_env())

    assert code == 1
    assert "usher.db" in err
    assert out == ""


async def test_the_whole_flow_leaves_no_personal_data_and_no_secret_in_the_logs(tmp_path: Path) -> None:
    """Sent, retried, rejected, parked, undecodable, mis-signed: no line and no metric holds an address, a number or a secret."""
    async with FakeProviders(refused={PEOPLE[2], PEOPLE[1]}) as provider:
        secrets = (provider.sendgrid_api_key, provider.twilio_auth_token, SECRET + "-webhook-secret")
        env = environment(
            retry_delays="100ms,200ms",
            log_level="debug",
            authgear__webhook_secret=secrets[2],
            email="sendgrid",
            sms="twilio",
            mail_from="Accounts <accounts@example.org>",
            sendgrid__api_key=secrets[0],
            sendgrid__base_url=provider.url,
            twilio__account_sid=provider.twilio_account_sid,
            twilio__auth_token=secrets[1],
            twilio__from=provider.twilio_from,
            twilio__base_url=provider.url,
        )
        provider.script(answer(503))
        async with running(tmp_path, env) as service:
            bodies = [
                _event("ann", email=PEOPLE[0]),
                _event("bob", phone=PEOPLE[1]),
                _event("cat", email=PEOPLE[2], username="user-name-of-cat"),
                _event(
                    "dan",
                    email=PEOPLE[3],
                    username="user-name-of-dan",
                    type_="admin_api.mutation.reset_password.executed",
                ),
                _event("eve", email="not an address of eve"),
                _event("fay", phone="07400 123456"),
                json.dumps({"mail": PEOPLE[0]}).encode(),
            ]
            for body in bodies:
                assert await _send(service, body, secrets[2]) in {200, 202}
            assert await _send(service, bodies[0], "wrong") == 401
            await service.wait(_counted(service, sent=2, dead=5))
            metrics = (await service.get("/metrics"))[1]
        said = "\n".join([json.dumps(line) for line in service.lines] + [metrics])
        code, listing, err = await usher("dlq", "list", "--json", cwd=tmp_path, env=env)

    assert code == 0, err
    for private in (*PEOPLE, *secrets, "address of eve", "user-name-of", "07400 123456", provider.twilio_account_sid):
        assert private not in said
        assert private not in listing


def _counted(service: Service, *, sent: int, dead: int) -> Callable[[], bool]:
    def reached() -> bool:
        events: list[Any] = [line["event"] for line in service.lines]
        return events.count("message sent") >= sent and events.count("dead-lettered") >= dead

    return reached

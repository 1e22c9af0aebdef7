"""Usher and a broker that trusts nobody: SCRAM over TLS and client certificates, with the settings that docs/operating.md shows."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.certificates import Authority, Certificate
from tests.java import started
from tests.kafka import Broker, unique
from tests.service import environment, running, usher

from usher.testing import raw_event

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
PASSWORD, KEY_PASSWORD = "kafka-pa55word", "key-pa55word"
EXAMPLES = {"scram": "SASL_SSL with SCRAM:", "mtls": "mTLS:"}
_PROPERTIES = """\
ssl.keystore.type=PKCS12
ssl.keystore.location={keystore}
ssl.keystore.password=broker-pa55word
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.mtls.ssl.client.auth=required
"""


class Guarded(NamedTuple):
    """A broker with a listener ``scram`` and one ``mtls``, and what a client needs to be let in."""

    broker: Broker
    authority: Authority
    client: Certificate
    folder: Path

    def settings(self, listener: str) -> dict[str, str]:
        """What docs/operating.md shows for it, with this broker's address and files."""
        here = {
            "USHER_EVENT_LOG": f"kafka://{self.broker.servers_of(listener.upper())}",
            "USHER_KAFKA__SASL_PLAIN_PASSWORD_FILE": self.file("kafka-password", PASSWORD),
            "USHER_KAFKA__SSL_CAFILE": str(self.authority.certificate),
            "USHER_KAFKA__SSL_CERTFILE": str(self.client.certificate),
            "USHER_KAFKA__SSL_KEYFILE": str(self.client.key),
            "USHER_KAFKA__SSL_PASSWORD_FILE": self.file("usher-key-password", KEY_PASSWORD),
        }
        shown = documented(EXAMPLES[listener])
        files = {setting for setting, value in shown.items() if "/" in value}
        assert files <= here.keys()
        return shown | {setting: here[setting] for setting in files}

    def file(self, name: str, secret: str) -> str:
        """The path of a file with a secret, as a mounted one: with a newline at its end."""
        path = self.folder / name
        path.write_text(f"{secret}\n")
        return str(path)


def documented(heading: str) -> dict[str, str]:
    """The settings in the block under *heading*."""
    match = re.search(rf"{re.escape(heading)}\n\n```sh\n(.*?)```", OPERATING.read_text("utf-8"), re.DOTALL)
    assert match is not None
    pairs = (line.partition("=") for line in match[1].splitlines())
    return {name: value for name, _, value in pairs}


@pytest.fixture(scope="module")
def guarded(kafka_jars: Path, openssl: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder / "authority")
    keystore = authority.keystore(authority.issue("broker", "broker-pa55word"))
    broker = Broker(
        folder / "kafka",
        others={"SCRAM": "SASL_SSL", "MTLS": "SSL"},
        users={"usher": PASSWORD},
        properties=_PROPERTIES.format(keystore=keystore, authority=authority.certificate),
    )
    with started(broker):
        yield Guarded(broker, authority, authority.issue("usher", KEY_PASSWORD), folder)


KEY = "a key that no topic has"
"""Of receipts: without one there is a warning."""


@pytest.mark.parametrize("listener", list(EXAMPLES))
async def test_the_documented_settings_do_the_whole_job(guarded: Guarded, tmp_path: Path, listener: str) -> None:
    """A mail goes out, its topics are made, and a dead letter is listed, without a warning or a secret in any output."""
    topic, group = unique("events"), unique("usher")
    await guarded.broker.create_topic(topic, 2)
    events = [raw_event(id="0a", email="ann@example.org"), raw_event(id="0b", email="no-address")]
    await guarded.broker.produce(topic, [(b"0a", events[0]), (b"0b", events[1])])
    env = environment(topics=topic, group=group, start_from="earliest", receipts__key=KEY)
    env |= guarded.settings(listener)

    async with running(tmp_path, env) as service:
        await service.line("message sent", event_id="0a")
        await service.line("dead-lettered", event_id="0b")
        commands = (("check",), ("dlq", "list", "--json"))
        checked, listed = await asyncio.gather(*(usher(*command, cwd=tmp_path, env=env) for command in commands))
        assert await service.end() == 0

    [mail] = (tmp_path / "outbox").glob("*.eml")
    assert "ann@example.org" in mail.read_text("utf-8")
    assert checked[0] == 0, checked
    assert listed[0] == 0, listed
    assert [dead_letter["event_id"] for dead_letter in json.loads(listed[1])] == ["0b"]
    async with guarded.broker.admin() as admin:
        assert {f"{group}.{topic}-retry", f"{group}.{topic}-dlt"} <= set(await admin.list_topics())
    assert [line for line in service.lines if line.get("level") in {"warning", "error"}] == []
    _holds_no_secret(f"{service.lines}{checked}{listed}")


async def test_a_wrong_password_is_refused(guarded: Guarded, tmp_path: Path) -> None:
    """It names the user, and the settings of both."""
    settings = guarded.settings("scram")
    settings["USHER_KAFKA__SASL_PLAIN_PASSWORD_FILE"] = guarded.file("wrong-password", "wr0ng-pa55word")

    said = await _refused(tmp_path, settings)

    assert "refuses the user 'usher'" in said
    assert "see USHER_KAFKA__SASL_PLAIN_USERNAME, USHER_KAFKA__SASL_PLAIN_PASSWORD" in said


async def test_a_mechanism_that_is_not_offered_is_refused(guarded: Guarded, tmp_path: Path) -> None:
    """It names the mechanism and its setting, and sends no password."""
    settings = guarded.settings("scram") | {"USHER_KAFKA__SASL_MECHANISM": "PLAIN"}

    assert "does not offer PLAIN: see USHER_KAFKA__SASL_MECHANISM" in await _refused(tmp_path, settings)


@pytest.mark.parametrize("listener", list(EXAMPLES))
async def test_a_broker_of_an_unknown_authority_is_not_trusted(guarded: Guarded, tmp_path: Path, listener: str) -> None:
    """It names the setting of the authority."""
    another = Authority(tmp_path / "another")
    settings = guarded.settings(listener) | {"USHER_KAFKA__SSL_CAFILE": str(another.certificate)}

    said = await _refused(tmp_path, settings)

    assert "certificate that is not trusted" in said
    assert said.endswith("see USHER_KAFKA__SSL_CAFILE")


async def test_a_broker_under_another_name_is_not_trusted(guarded: Guarded, tmp_path: Path) -> None:
    """It names both the name that was asked for and the setting that has it."""
    settings = guarded.settings("scram")
    settings["USHER_EVENT_LOG"] = settings["USHER_EVENT_LOG"].replace("127.0.0.1", "localhost")

    said = await _refused(tmp_path, settings)

    assert "not valid for 'localhost'" in said
    assert "USHER_EVENT_LOG must name the broker as its certificate does" in said


async def test_a_missing_client_certificate_is_asked_for(guarded: Guarded, tmp_path: Path) -> None:
    """It names the settings that are missing."""
    own = ("USHER_KAFKA__SSL_CERTFILE", "USHER_KAFKA__SSL_KEYFILE", "USHER_KAFKA__SSL_PASSWORD_FILE")
    settings = {name: value for name, value in guarded.settings("mtls").items() if name not in own}

    said = await _refused(tmp_path, settings)

    assert said.endswith("set USHER_KAFKA__SSL_CERTFILE and USHER_KAFKA__SSL_KEYFILE")


async def test_a_strangers_client_certificate_is_refused(guarded: Guarded, tmp_path: Path) -> None:
    """It names the setting of the certificate."""
    stranger = Authority(tmp_path / "another").issue("stranger", KEY_PASSWORD)
    settings = guarded.settings("mtls")
    settings["USHER_KAFKA__SSL_CERTFILE"] = str(stranger.certificate)
    settings["USHER_KAFKA__SSL_KEYFILE"] = str(stranger.key)

    said = await _refused(tmp_path, settings)

    assert "refuses the client's certificate" in said
    assert said.endswith("see USHER_KAFKA__SSL_CERTFILE")


async def test_a_listener_of_another_protocol_is_waited_for_with_a_hint(guarded: Guarded, tmp_path: Path) -> None:
    """Such a broker looks like one that is going down: the worker waits, and names the setting that may be wrong."""
    env = environment(event_log=guarded.settings("mtls")["USHER_EVENT_LOG"])
    async with running(tmp_path, env, ready=False) as service:
        waiting = await service.line("kafka is not ready")
        assert "see USHER_KAFKA__SECURITY_PROTOCOL" in waiting["reason"]


async def _refused(cwd: Path, settings: dict[str, str]) -> str:
    """What `usher run` says, in one line and at once; `usher check` says the same."""
    env = environment(receipts__key=KEY) | settings
    runs, checks = await asyncio.gather(usher("run", cwd=cwd, env=env), usher("check", "--json", cwd=cwd, env=env))
    _holds_no_secret(f"{runs}{checks}")
    assert (runs[0], checks[0]) == (1, 1)
    [said] = [line for line in runs[2].splitlines() if _level(line) != "info"]
    [problem] = [line["text"] for line in json.loads(checks[1]) if line["status"] == "problem"]
    assert said == f"usher: {problem}"
    return said


def _level(line: str) -> object:
    """The level of a log line; None: it is none."""
    return json.loads(line).get("level") if line.startswith("{") else None


def _holds_no_secret(text: str) -> None:
    assert "pa55word" not in text

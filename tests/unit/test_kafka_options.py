"""The client settings of Kafka: what is refused, and that the refusal says the way out and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from usher.kafka_options import SecretFile, kafka_options
from usher.settings.environment import read_secret

SASL = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "scram-sha-256",
    "sasl_plain_username": "usher",
    "sasl_plain_password": "hunter2",
}


def test_nothing_need_be_set() -> None:
    """Without settings the clients speak plain text, and a lost worker is missed within ten seconds."""
    options = kafka_options({})

    assert options.common["security_protocol"] == "PLAINTEXT"
    assert options.consumer["session_timeout_ms"] == 10_000


def test_values_may_be_text() -> None:
    """Names in any case and numbers as text, as the environment gives them, are understood."""
    options = kafka_options({"SESSION_TIMEOUT_MS": "6000", **SASL})

    assert options.consumer["session_timeout_ms"] == 6_000
    assert options.common["sasl_mechanism"] == "SCRAM-SHA-256"
    assert options.common["sasl_plain_password"] == "hunter2"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"sasl_mechanismus": "PLAIN"},
            r"SASL_MECHANISMUS: there is no such setting \(did you mean 'USHER_KAFKA__SASL_MECHANISM'\?\)",
        ),
        ({"zzz": "1"}, r"ZZZ: there is no such setting \(known are client_id"),
        ({"session_timeout_ms": "soon"}, r"SESSION_TIMEOUT_MS='soon': should be a whole number of milliseconds"),
        ({"session_timeout_ms": 1}, r"from 1000 to 300000"),
        ({"heartbeat_interval_ms": "9000"}, r"HEARTBEAT_INTERVAL_MS='9000': should be at most half of"),
        ({"security_protocol": "TLS"}, r"SECURITY_PROTOCOL='TLS': should be one of PLAINTEXT, SSL"),
        ({"client_id": ""}, r"CLIENT_ID: is empty"),
        ({"auto_offset_reset": "latest"}, r"AUTO_OFFSET_RESET: can't be set: USHER_START_FROM"),
        ({"enable_auto_commit": "true"}, r"ENABLE_AUTO_COMMIT: can't be set"),
        ({"acks": "1"}, r"ACKS: can't be set"),
        ({"group_id": "x"}, r"GROUP_ID: can't be set: USHER_GROUP"),
        ({**SASL, "sasl_plain_password": ""}, r"SASL_PLAIN_PASSWORD: is empty"),
        ({k: v for k, v in SASL.items() if k != "sasl_plain_username"}, r"SASL_PLAIN_USERNAME: is needed where"),
        ({**SASL, "security_protocol": "SSL"}, r"is of no use where USHER_KAFKA__SECURITY_PROTOCOL is SSL"),
        ({"ssl_cafile": "ca.pem"}, r"SSL_CAFILE: is of no use where USHER_KAFKA__SECURITY_PROTOCOL is PLAINTEXT"),
        ({"security_protocol": "SSL", "ssl_keyfile": "key.pem"}, r"SSL_CERTFILE: is needed beside"),
        (
            {"security_protocol": "SSL", "ssl_cafile": "/no/such/ca.pem"},
            r"SSL_CAFILE='/no/such/ca.pem': can't be loaded",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_the_way_out(options: dict[str, object], says: str) -> None:
    """Each refusal names the variable and what it may be, and no password."""
    with pytest.raises(ValueError, match=says) as refusal:
        kafka_options(options)

    assert all(line.startswith("USHER_KAFKA__") for line in str(refusal.value).splitlines())
    assert "hunter2" not in str(refusal.value)


def test_all_mistakes_are_reported_at_once() -> None:
    """One line for each."""
    with pytest.raises(ValueError, match="ACKS") as refusal:
        kafka_options({"acks": "1", "zzz": "1", "security_protocol": "TLS"})

    assert len(str(refusal.value).splitlines()) == 3


def test_certificates_are_loaded_at_once(tmp_path: Path) -> None:
    """A certificate that is none is refused when the settings are checked, not at the first connection."""
    bad = tmp_path / "client.pem"
    bad.write_text("not a certificate")

    assert kafka_options({"security_protocol": "SSL"}).common["ssl_context"] is not None
    with pytest.raises(
        ValueError, match=r"SSL_CERTFILE=.*: can't be loaded with its key: .*; see also USHER_KAFKA__SSL_KEYFILE"
    ):
        kafka_options({"security_protocol": "SSL", "ssl_certfile": str(bad)})


def test_a_secret_that_was_renewed_on_disk_is_read_again(tmp_path: Path) -> None:
    """Clients that are built anew have the new one; as long as nothing has changed nothing is read."""
    file = tmp_path / "password"
    file.write_text("old")
    given = {**SASL, "sasl_plain_password": SecretFile(str(file), file.read_text)}
    options = kafka_options(given)

    assert options.renewed() is options
    file.write_text("renewed")

    renewed = options.renewed()
    assert renewed.common["sasl_plain_password"] == "renewed"
    assert renewed.renewed() is renewed


def test_a_secret_that_is_gone_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    """The caller keeps what it has."""
    file = tmp_path / "password"
    file.write_text("old")
    options = kafka_options({**SASL, "sasl_plain_password": SecretFile(str(file), lambda: read_secret(str(file)))})
    file.unlink()

    with pytest.raises(ValueError, match="can't be read"):
        options.renewed()

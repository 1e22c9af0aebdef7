"""The client settings of Kafka: what is refused, and that the refusal says the way out and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from usher.eventlog.errors import LogMisconfigured
from usher.eventlog.kafka import check_options

SASL = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "scram-sha-256",
    "sasl_plain_username": "usher",
    "sasl_plain_password": "hunter2",
}


def test_nothing_need_be_set() -> None:
    """Without settings the clients speak plain text, and a lost worker is missed within ten seconds."""
    options = check_options({})

    assert options.common["security_protocol"] == "PLAINTEXT"
    assert options.consumer["session_timeout_ms"] == 10_000


def test_values_may_be_text() -> None:
    """Names in any case and numbers as text, as the environment gives them, are understood."""
    options = check_options({"SESSION_TIMEOUT_MS": "6000", **SASL})

    assert options.consumer["session_timeout_ms"] == 6_000
    assert options.common["sasl_mechanism"] == "SCRAM-SHA-256"
    assert options.common["sasl_plain_password"] == "hunter2"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"sasl_mechanismus": "PLAIN"},
            r"SASL_MECHANISMUS is not a setting; did you mean USHER_KAFKA__SASL_MECHANISM\?",
        ),
        ({"zzz": "1"}, r"ZZZ is not a setting; known are client_id"),
        ({"session_timeout_ms": "soon"}, r"SESSION_TIMEOUT_MS is 'soon'; it must be a whole number of milliseconds"),
        ({"session_timeout_ms": 1}, r"from 1000 to 300000"),
        ({"heartbeat_interval_ms": "9000"}, r"HEARTBEAT_INTERVAL_MS must be at most half of session_timeout_ms"),
        ({"security_protocol": "TLS"}, r"SECURITY_PROTOCOL is 'TLS'; it may be PLAINTEXT, SSL"),
        ({"client_id": ""}, r"CLIENT_ID is empty"),
        ({"auto_offset_reset": "latest"}, r"AUTO_OFFSET_RESET can't be set: USHER_START_FROM"),
        ({"enable_auto_commit": "true"}, r"ENABLE_AUTO_COMMIT can't be set"),
        ({"acks": "1"}, r"ACKS can't be set"),
        ({"group_id": "x"}, r"GROUP_ID can't be set: USHER_GROUP"),
        ({**SASL, "sasl_plain_password": ""}, r"SASL_PLAIN_PASSWORD is empty"),
        ({k: v for k, v in SASL.items() if k != "sasl_plain_username"}, r"SASL_PLAIN_USERNAME is missing"),
        ({**SASL, "security_protocol": "SSL"}, r"is of no use: security_protocol is SSL"),
        ({"ssl_cafile": "ca.pem"}, r"SSL_CAFILE is of no use: security_protocol is PLAINTEXT"),
        ({"security_protocol": "SSL", "ssl_keyfile": "key.pem"}, r"SSL_CERTFILE is missing"),
        (
            {"security_protocol": "SSL", "ssl_cafile": "/no/such/ca.pem"},
            r"SSL_CAFILE can't be loaded from /no/such/ca.pem",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_the_way_out(options: dict[str, object], says: str) -> None:
    """Each refusal names the variable and what it may be, and no password."""
    with pytest.raises(LogMisconfigured, match=says) as refusal:
        check_options(options)

    assert str(refusal.value).startswith("USHER_KAFKA__")
    assert "hunter2" not in str(refusal.value)


def test_certificates_are_loaded_at_once(tmp_path: Path) -> None:
    """A certificate that is none is refused when the settings are checked, not at the first connection."""
    bad = tmp_path / "client.pem"
    bad.write_text("not a certificate")

    assert check_options({"security_protocol": "SSL"}).common["ssl_context"] is not None
    with pytest.raises(
        LogMisconfigured, match=r"SSL_CERTFILE can't be loaded from .*; see also USHER_KAFKA__SSL_KEYFILE"
    ):
        check_options({"security_protocol": "SSL", "ssl_certfile": str(bad)})

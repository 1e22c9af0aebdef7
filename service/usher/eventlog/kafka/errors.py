"""Hides what the errors of aiokafka, of TLS and of SASL look like, and which setting each of them is about."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    IllegalSaslStateError,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

_ANOTHER_NAME: Final = (62, 64)
"""OpenSSL's codes for a certificate that is for another host name, or another address."""

_MAYBE_PROTOCOL: Final = "if it stays so, see USHER_KAFKA__SECURITY_PROTOCOL: its listener may speak another"
SILENT: Final = f"answers, but does not tell of its cluster ({_MAYBE_PROTOCOL})"
"""What is said of a broker that takes the connection and no more; one that wants SASL and is spoken to without does so."""


def brief(error: BaseException) -> str:
    """An error on one line, with its type. Those of a Kafka client speak of hosts and topics, never of what is in a record."""
    text, name = " ".join(str(error).split()), type(error).__name__
    return text if name in text else f"{name} {text}".rstrip()


def refusal(error: BaseException, options: Mapping[str, Any], *, certified: bool) -> str | None:
    """What was refused where waiting does not help, with the settings to look at; None: a broker that may come back.

    *options* are the client's; *certified*: it has a certificate of its own. The text goes on from "Kafka at HOST:PORT".
    """
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _their_certificate(cause)
        if isinstance(cause, ssl.SSLError) and _is_about_ours(cause):
            return _our_certificate(cause, certified=certified)
        if isinstance(cause, UnsupportedSaslMechanismError | AuthenticationMethodNotSupported):
            return f"does not offer {options['sasl_mechanism']}: see USHER_KAFKA__SASL_MECHANISM"
        if isinstance(cause, IllegalSaslStateError):
            return (
                f"takes no user and password there: see USHER_KAFKA__SECURITY_PROTOCOL ({options['security_protocol']})"
            )
        if isinstance(cause, SaslAuthenticationFailed | AuthenticationFailedError):
            return (
                f"refuses the user {options['sasl_plain_username']!r} ({brief(cause)}): see "
                "USHER_KAFKA__SASL_PLAIN_USERNAME, USHER_KAFKA__SASL_PLAIN_PASSWORD and USHER_KAFKA__SASL_MECHANISM"
            )
    return None


def obstacle(error: BaseException) -> str:
    """What is in the way where waiting may help. A listener of another protocol looks like a broker that is going down."""
    if isinstance(error, KafkaConnectionError | ConnectionResetError):
        return f"{brief(error)} ({_MAYBE_PROTOCOL})"
    return brief(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _their_certificate(error: ssl.SSLCertVerificationError) -> str:
    said = error.verify_message.rstrip(".")
    if error.verify_code in _ANOTHER_NAME:
        return f"shows a certificate for another name ({said}): USHER_EVENT_LOG must name the broker as its certificate does"
    return f"shows a certificate that is not trusted ({said}): see USHER_KAFKA__SSL_CAFILE"


def _is_about_ours(error: ssl.SSLError) -> bool:
    """Whether it is the broker's alert about the client's certificate."""
    reason = error.reason or ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


def _our_certificate(error: ssl.SSLError, *, certified: bool) -> str:
    said = (error.reason or "").partition("ALERT_")[2].replace("_", " ").lower()
    if certified:
        return f"refuses the client's certificate ({said}): see USHER_KAFKA__SSL_CERTFILE"
    return f"wants a client's certificate ({said}): set USHER_KAFKA__SSL_CERTFILE and USHER_KAFKA__SSL_KEYFILE"

"""The errors of aiokafka, of TLS and of SASL in words. Hides which setting each of them is about."""

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

from usher.redact import Ours

_ANOTHER_NAME: Final = (62, 64)
"""The codes of OpenSSL for a certificate of another host name, or of another address."""

_MAYBE_PROTOCOL: Final = "if it stays so, see USHER_KAFKA__SECURITY_PROTOCOL: its listener may use another protocol"
SILENT: Final = f"answers, but does not describe its cluster ({_MAYBE_PROTOCOL})"
"""The text for a broker that takes the connection and then says nothing. A listener for SASL does so to a client without."""


def brief(error: BaseException) -> Ours:
    """Return an error on one line, with its type. Errors of a Kafka client name hosts and topics, never the content of a record."""
    text, name = " ".join(str(error).split()), type(error).__name__
    return Ours(text if name in text else f"{name} {text}".rstrip())


def refusal(error: BaseException, options: Mapping[str, Any], *, certified: bool) -> str | None:
    """Say what was refused, and which settings to look at, where it does not help to wait. None: the broker may come back.

    *options* are those of the client; *certified*: it has a certificate of its own. The text continues "Kafka at HOST:PORT".
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
    """Say what went wrong where it may help to wait. A listener of another protocol looks like a broker that goes down."""
    if isinstance(error, KafkaConnectionError | ConnectionResetError):
        return Ours(f"{brief(error)} ({_MAYBE_PROTOCOL})")
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
    """Return whether it is an alert of the broker about the certificate of the client."""
    reason = error.reason or ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


def _our_certificate(error: ssl.SSLError, *, certified: bool) -> str:
    said = (error.reason or "").partition("ALERT_")[2].replace("_", " ").lower()
    if certified:
        return f"refuses the client's certificate ({said}): see USHER_KAFKA__SSL_CERTFILE"
    return f"wants a client's certificate ({said}): set USHER_KAFKA__SSL_CERTFILE and USHER_KAFKA__SSL_KEYFILE"

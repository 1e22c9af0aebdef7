"""Sends a running service one signed Authgear webhook, and waits for the mail: what a person would try first.

    image_probe.py PORT SECRET OUTBOX

Exits with 0 once the folder OUTBOX holds one mail to the user. Standard library only: it runs wherever the image does.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import sys
import time
from email import policy
from email.parser import BytesParser
from pathlib import Path

PATIENCE = 60.0
ADDRESS = "wilma.probe@example.org"

EVENT = {
    "id": "0000000000000042",
    "seq": 42,
    "type": "user.created",
    "payload": {
        "user": {
            "id": "5c2b9d1e-7a40-4a57-9f0e-3d6a1b7c8e90",
            "standard_attributes": {"email": ADDRESS, "email_verified": False},
        },
        "identities": [
            {"id": "8b0f4c0e-1f4d-4f4e-8a55-0c9e6d2f7b31", "type": "login_id", "claims": {"email": ADDRESS}}
        ],
    },
    "context": {
        "timestamp": int(time.time()),
        "user_id": None,
        "triggered_by": "admin_api",
        "preferred_languages": ["en"],
        "language": "en",
        "app_id": "image-test",
    },
}


def call(port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
    """The status of one request; 0 where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body, headers or {})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def until(what: str, deadline: float, true: object) -> None:
    """Ask until it is so. Another process can't be waited on from outside: it has to be asked."""
    while not true():  # type: ignore[operator]
        if time.monotonic() > deadline:
            sys.exit(f"image_probe: {what}: not within {PATIENCE:.0f} s")
        time.sleep(0.1)


def main(port: int, secret: str, outbox: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    until("ready", deadline, lambda: call(port, "GET", "/readyz") == 200)
    body = json.dumps(EVENT).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    forged = call(port, "POST", "/ingest/authgear", body, {"x-authgear-body-signature": "0" * 64})
    taken = call(port, "POST", "/ingest/authgear", body, {"x-authgear-body-signature": signature})
    if (forged, taken // 100) != (401, 2):
        sys.exit(f"image_probe: a forged webhook was answered {forged}, a signed one {taken}; expected 401 and 2xx")
    until("a mail in the outbox", deadline, lambda: list(outbox.glob("**/*.eml")))
    mails = [BytesParser(policy=policy.default).parsebytes(path.read_bytes()) for path in outbox.glob("**/*.eml")]
    if [str(mail["To"]) for mail in mails] != [ADDRESS]:
        sys.exit(f"image_probe: mails to {[str(mail['To']) for mail in mails]}, expected one to {ADDRESS}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))

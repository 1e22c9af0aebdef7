"""The webhook calls of the demo's identity systems. Hides the shapes of their events, and how each call is authenticated."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from usher.systems.authgear.source import SIGNATURE as AUTHGEAR_SIGNATURE
from usher.systems.keycloak.source import SIGNATURE as KEYCLOAK_SIGNATURE

_SECRET = "demo-webhook-secret"  # noqa: S105 - no secret: it is for a server on loopback that lives for seconds
_INITIAL = "Spring-2026!"
_ADMIN = "demo-dashboard"

SETTINGS: Mapping[str, str] = {
    "USHER_AUTHGEAR__WEBHOOK_SECRET": _SECRET,
    "USHER_AUTH0__WEBHOOK_TOKEN": _SECRET,
    "USHER_AUTH0__ADMIN_CLIENTS": _ADMIN,
    "USHER_GENAUTH__WEBHOOK_SECRET": _SECRET,
    "USHER_KEYCLOAK__WEBHOOK_SECRET": _SECRET,
}
CREDENTIALS = (_INITIAL, hashlib.md5(_INITIAL.encode(), usedforsecurity=False).hexdigest())
"""The credentials that some systems send with their events: they must be found nowhere afterwards."""


@dataclass(frozen=True, slots=True)
class Call:
    """A webhook call."""

    path: str
    body: bytes
    headers: Mapping[str, str]


def call(system: str, body: bytes, *, secret: str = _SECRET) -> Call:
    """Make the call with which *system* delivers a body."""
    return Call(f"/ingest/{system}", body, {"content-type": "application/json", **_PROOFS[system](body, secret)})


def created(system: str, user: str, name: str, email: str, now: float) -> bytes:
    """Make what *system* sends when an administrator has created *user*, at *now* (Unix seconds)."""
    document: dict[str, Any] = _CREATED[system](user, name, email, now)
    return json.dumps(document).encode()


def _auth0(user: str, name: str, email: str, now: float) -> dict[str, Any]:
    when = _iso(now)
    person = {"user_id": f"auth0|{user}", "email": email, "email_verified": False, "given_name": name, "name": name}
    return {
        "specversion": "1.0",
        "type": "user.created",
        "source": "urn:auth0:harbour.eu.auth0.com",
        "id": f"evt_{user}",
        "time": when,
        "a0tenant": "harbour",
        "a0stream": "est_demo",
        "data": {
            "object": {**person, "created_at": when, "updated_at": when},
            "context": {
                "client": {"id": _ADMIN, "name": "Dashboard"},
                "request": {"method": "POST", "ip": "192.0.2.10"},
            },
        },
    }


def _genauth(user: str, name: str, email: str, now: float) -> dict[str, Any]:
    person = {"id": user, "userPoolId": "harbour", "email": email, "name": name, "registerSource": ["import:manual"]}
    secrets = {"password": CREDENTIALS[1], "salt": "74oc2678764", "encryptedPassword": _INITIAL, "token": None}
    return {"eventName": "user:created", "data": {**person, **secrets, "createdAt": _iso(now), "updatedAt": _iso(now)}}


def _keycloak(user: str, name: str, email: str, now: float) -> dict[str, Any]:
    credential = {"type": "password", "value": _INITIAL, "temporary": True}
    person = {"username": name.lower(), "firstName": name, "email": email, "enabled": True, "credentials": [credential]}
    return {
        "id": user,
        "uid": user,
        "time": int(now * 1000),
        "realmId": "harbour",
        "realmName": "harbour",
        "type": "admin.USER-CREATE",
        "resourceType": "USER",
        "operationType": "CREATE",
        "resourcePath": f"users/{user}",
        "representation": json.dumps(person),
        "authDetails": {
            "realmId": "master",
            "clientId": "admin-cli",
            "userId": "demo-admin",
            "ipAddress": "192.0.2.10",
        },
    }


def _hmac(body: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _iso(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_CREATED: Mapping[str, Callable[[str, str, str, float], dict[str, Any]]] = {
    "auth0": _auth0,
    "genauth": _genauth,
    "keycloak": _keycloak,
}
_PROOFS: Mapping[str, Callable[[bytes, str], Mapping[str, str]]] = {
    "authgear": lambda body, secret: {AUTHGEAR_SIGNATURE: _hmac(body, secret)},
    "auth0": lambda _body, secret: {"authorization": f"Bearer {secret}"},
    "genauth": lambda _body, secret: {"x-authing-webhook-secret": secret},
    "keycloak": lambda body, secret: {KEYCLOAK_SIGNATURE: _hmac(body, secret)},
}

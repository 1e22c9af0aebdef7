"""What a body of an identity system might bring in beside its event: texts that are documents, of every system but Authgear."""

from __future__ import annotations

import json
from typing import Any

import pytest

from usher.systems.auth0.source import Auth0Source
from usher.systems.decode import decode
from usher.systems.genauth.source import GenAuthSource
from usher.systems.keycloak.source import KeycloakSource
from usher.systems.source import Source

PAIRS = [
    {"name": "password", "value": "hunter2"},
    {"type": "password", "value": "hunter2"},
    {"key": "kept", "value": 1},
]
NOTE = json.dumps({"kept": 1, "inner": json.dumps([{"password": "hunter2"}, PAIRS])})
USER_CREATED: dict[str, Any] = {
    "id": "evt_1",
    "type": "user.created",
    "data": {"object": {"user_id": "auth0|1", "user_metadata": {"note": NOTE}}},
}
USER_CALL: dict[str, Any] = {
    "log_id": "1",
    "type": "sapi",
    "details": {"request": {"method": "post", "path": "/api/v2/users", "body": {"user_metadata": {"note": NOTE}}}},
}
ADMIN_EVENT: dict[str, Any] = {
    "id": "1",
    "operationType": "CREATE",
    "resourceType": "USER",
    "resourcePath": "users/u-1",
    "note": NOTE,
    "representation": json.dumps({"attributes": {"note": [NOTE]}}),
}


@pytest.mark.parametrize(
    ("source", "document"),
    [
        (Auth0Source(["k"]), USER_CREATED),
        (Auth0Source(["k"]), USER_CALL),
        (GenAuthSource(["k"]), {"eventName": "user:created", "data": {"userId": "u-1", "note": NOTE}}),
        (KeycloakSource(["k"]), ADMIN_EVENT),
    ],
    ids=["auth0", "auth0 log", "genauth", "keycloak"],
)
def test_a_credential_in_a_text_that_is_a_document_is_taken_out(source: Source, document: dict[str, Any]) -> None:
    """Custom fields hold what a team's own program has serialised: it is looked into, and what is harmless there stays."""
    [arrival] = source.arrivals(json.dumps(document).encode(), {}, 0.0)
    assert arrival.event is not None
    assert b"hunter2" not in arrival.value
    assert b"kept" in arrival.value
    assert decode(arrival.value) == arrival.event

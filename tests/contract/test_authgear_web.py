"""Authgear's webhook over HTTP, given anything at all: a documented answer, no defect in the lines, no credential in the topic."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from tests.ingress import HIDDEN, LEAVES, Site, bombard, documents, hidden, sign

from usher.event import Undecodable
from usher.systems.authgear.source import SIGNATURE, AuthgearHabits, AuthgearSource, Step
from usher.systems.decode import decode

SECRET = "whsec"
_BOTH: frozenset[Step] = frozenset({"created", "reset"})

_FIELDS = st.sampled_from(
    ["id", "seq", "type", "payload", "context", "user", "identities", "claims", "standard_attributes", "created_at",
     "timestamp", "triggered_by", "audit_context", "app_id", "already_notified_by", "login_id", "body", "to", "template_variables"]
)  # fmt: skip
_SECRET_FIELDS = st.sampled_from(
    ["password", "newPassword", "code", "otp", "access_token", "reset_link", "clientSecret"]
)
_JSON = documents(LEAVES | st.floats() | hidden(_SECRET_FIELDS), _FIELDS | st.text(max_size=6), max_leaves=20)
_EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["user.created", "admin_api.mutation.reset_password.executed", "x"]) | _JSON},
    optional={
        "id": _JSON,
        "payload": _JSON,
        "context": _JSON,
        "user": _JSON,
        "source": _JSON,
        "password": st.just(HIDDEN),
    },
)
_BODIES = (
    (_EVENTS | _JSON).map(lambda document: json.dumps(document).encode())
    | _EVENTS.map(
        lambda document: json.dumps({**document, "odd": "\ud800"}).encode()
    )  # JSON that no later reader could take
    | st.binary(max_size=200)
)


async def test_no_body_is_too_strange() -> None:
    """Signed, and whatever it holds: 200, 202 or 400; what is stored is an event again or a dead letter, without credentials."""

    def is_what_was_answered(status: int) -> None:
        assert [_decodes(kept.value) for kept in site.kept] == ([] if status == 400 else [status == 200])

    async with Site(
        AuthgearSource([SECRET], AuthgearHabits(_BOTH, _BOTH)), lambda body: sign(SIGNATURE, body, SECRET)
    ) as site:
        await bombard(site, _BODIES, is_what_was_answered, examples=200)


def _decodes(value: bytes) -> bool:
    try:
        decode(value)
    except Undecodable:
        return False
    return True

"""Texts that strangers write are bounded before any work on them that grows faster than they do."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usher.addresses import MailSender, mail_address
from usher.channels import Mail
from usher.channels.address import email_address, phone_number
from usher.channels.mime import build
from usher.channels.template_files import TemplateFiles
from usher.channels.templates import Brand, Templates
from usher.event import Event, EventContext, User
from usher.http import Answer, asked_wait
from usher.outcome import Reject
from usher.systems.auth0.source import Auth0Source
from usher.systems.authgear.source import AuthgearSource
from usher.systems.canonical import read_user
from usher.systems.decode import decode
from usher.systems.genauth.source import GenAuthSource
from usher.systems.keycloak.source import KeycloakSource
from usher.systems.source import Source

ROOT = Path(__file__).parents[2]
LONG = 60_000
"""Characters in each field: some such fields are what a webhook may bring."""
SECONDS = 1.5
"""Of processor time for one such event, generously; what is quadratic takes longer."""
PIECES = ["a", "a-", "a@", "é ", "/", "[", '{"', "://", "+1", "=?utf-8?q?", "\n", "1"]

pytestmark = pytest.mark.heavy

pieces = pytest.mark.parametrize("piece", PIECES)


def keycloak(text: str) -> dict[str, Any]:
    user = {"username": text, "email": text, "firstName": text, "attributes": {"locale": [text], "phoneNumber": [text]}}
    return {
        "id": text, "operationType": "CREATE", "resourceType": "USER", "resourcePath": f"users/{text}",
        "realmName": text, "representation": json.dumps(user), "authDetails": {"userId": text, "username": text},
    }  # fmt: skip


def authgear(text: str) -> dict[str, Any]:
    attributes = {"email": text, "phone_number": text, "name": text, "locale": text, "preferred_username": text}
    return {
        "id": text, "type": "user.created",
        "context": {"user_id": text, "app_id": text, "language": text, "preferred_languages": [text], "triggered_by": text},
        "payload": {"user": {"id": text, "standard_attributes": attributes}, "login_id": text},
    }  # fmt: skip


def auth0(text: str) -> dict[str, Any]:
    user = {"user_id": text, "email": text, "name": text, "phone_number": text, "user_metadata": {"locale": text}}
    return {"id": text, "type": "user.created", "time": text, "data": {"object": user}}


def genauth(text: str) -> dict[str, Any]:
    user = {"userId": text, "phone": text, "email": text, "name": text, "createdAt": text, "locale": text}
    return {"eventName": "user:created", "data": {**user, "registerSource": [text], "userPoolId": text}}


def rendered(event: Event) -> None:
    """Do to *event* what a delivery does: choose a language, render, address, build; what is refused is refused."""
    templates = Templates(
        [ROOT / "handlers" / "usher_handlers" / "templates"], brand=Brand(login_url="https://login.example.org")
    )
    mail = templates.mail("welcome_email", event, email="kim@example.org")
    templates.sms("sms_notice", event)
    for check, given_ in ((email_address, event.user.email), (phone_number, event.user.phone)):
        with contextlib.suppress(Reject):
            check(given_ or "")
    subject = f"{mail.subject} {event.user.name}"
    build(
        Mail("kim@example.org", MailSender("a@example.org"), subject.replace("\n", " "), mail.text, mail.html, "k"),
        datetime.now(UTC),
    )


@pytest.mark.parametrize(
    ("source", "document"),
    [(KeycloakSource(), keycloak), (AuthgearSource(), authgear), (Auth0Source(), auth0), (GenAuthSource(), genauth)],
    ids=["keycloak", "authgear", "auth0", "genauth"],
)
@pieces
def test_an_event_of_long_texts_costs_no_more_than_its_length(
    source: Source, document: Callable[[str], dict[str, Any]], piece: str
) -> None:
    """Whatever a user writes into every field at once, it is read, stored, read back, rendered and addressed in seconds."""
    body = json.dumps(document(piece * (LONG // len(piece)))).encode()
    begun = time.process_time()
    [arrival] = source.arrivals(body, {}, 0.0)
    if arrival.event is not None:
        event = decode(arrival.value)
        rendered(event)
        assert max(len(item or "") for item in (event.user.email, event.user.phone, event.user.name)) <= 512
        assert max(map(len, (event.id, event.type, event.raw_type, event.tenant))) <= 200
    assert time.process_time() - begun < SECONDS


@pieces
def test_addresses_are_refused_by_their_length(piece: str) -> None:
    """An address or number that no rule allows is refused without a look at its parts."""
    text = piece * (LONG // len(piece))
    begun = time.process_time()
    with pytest.raises(ValueError, match="longer than an address"):
        mail_address(f"{text}@example.org")
    with pytest.raises(Reject):
        phone_number(text)
    assert time.process_time() - begun < SECONDS


@pieces
def test_headers_and_answers_of_servers_are_read_in_no_time(piece: str) -> None:
    """``Retry-After`` of the longest header there is, and a document of megabytes that nests without an end."""
    begun = time.process_time()
    text = piece * (8000 // len(piece))
    asked_wait({"Retry-After": text, "X-RateLimit-Reset": text}, 0.0)
    _ = Answer(200, {}, (piece * (4_000_000 // len(piece))).encode()).document
    assert time.process_time() - begun < SECONDS


def test_a_subject_has_an_end(tmp_path: Path) -> None:
    """A template puts a user's metadata into its subject: what is folded has a bounded length."""
    (tmp_path / "note").mkdir()
    (tmp_path / "note" / "en.txt").write_text("Subject: Hello {{ event.payload.nick }}\n\nText")
    event = Event(id="1", type="x", raw_type="x", source="authgear", payload={"nick": "é " * LONG})

    assert len(Templates([tmp_path], brand=Brand()).mail("note", event).subject) <= 400


class Counting(dict[Any, Any]):
    """A mapping that counts how often it is asked."""

    asked = 0

    def get(self, key: Any, default: Any = None) -> Any:
        self.asked += 1
        return super().get(key, default)


@settings(deadline=None)
@given(st.lists(st.text("aA1-_.@é", max_size=300) | st.integers(1, 9999).map("-".join("a" * 9).__mul__), max_size=60))
def test_a_language_is_looked_up_a_bounded_number_of_times(tags: list[str]) -> None:
    """However many tags of whatever length: at most 20 of them count, each with at most 8 subtags and 35 characters."""
    context = EventContext(preferred_languages=tuple(tags))
    event = Event(
        id="1", type="x", raw_type="x", source="authgear", context=context, user=read_user({"locale": "de-AT"})
    )
    files = TemplateFiles([])
    files.paths = paths = Counting()

    with pytest.raises(Reject):
        files.choose("note", ".txt", event.languages)

    assert paths.asked <= 20 * 8 + 1
    assert all(len(tag) <= 35 for tag in event.languages)


@pytest.mark.parametrize(
    ("tag", "taken"),
    [
        ("zh-Hant-HK", True),
        ("de_DE.UTF-8", True),
        ("a-b-c-d-e-f-g-h", True),
        ("a-b-c-d-e-f-g-h-i", False),
        ("a_b_c_d_e_f_g_h_i", False),
        ("x" * 35, True),
        ("x" * 36, False),
    ],
)
def test_a_language_tag_has_eight_subtags_and_35_characters(tag: str, taken: bool) -> None:
    """What is longer is no language; real ones are all shorter."""
    event = Event(id="1", type="x", raw_type="x", source="authgear", context=EventContext(language=tag))

    assert event.languages == ((tag,) if taken else ())


def test_what_is_too_long_for_a_field_is_left_out_and_the_others_stay() -> None:
    """One field that a user filled up costs no other field."""
    user = read_user(
        {"id": "u-1", "email": "kim@example.org", "name": "x" * 513, "phone": "+" + "1" * 250, "username": "k" * 321}
    )

    assert user == User(id="u-1", email="kim@example.org")

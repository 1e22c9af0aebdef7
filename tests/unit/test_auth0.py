"""Auth0's events and log entries: what each sample becomes, who triggered it, and what of it may not be kept."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher.delivery import StoredRecord
from usher.event import Event
from usher.handler import HandlerError, on
from usher.systems.auth0.rules import Auth0Rules
from usher.systems.auth0.source import Auth0Source
from usher.systems.decode import decode
from usher.systems.document import NotJson
from usher.systems.source import Arrival, read_record

SAMPLES = Path(__file__).parents[1] / "samples" / "auth0"
SECRETS = (
    "pw-Typed-At-Signup-1", "pw-Initial-Eva-1", "pw-Set-By-Admin-2", "pw-Chosen-New-3", "tick-verify-0000000000000000001",
    "tick-by-api-00000000000000002", "tick-reset-000000000000000003",
)  # fmt: skip
DASHBOARD, PORTAL, BACK_OFFICE = (
    "clDashboard0000000000000000000001",
    "clPortal000000000000000000000002",
    "clBackOffice00000000000000000003",
)
EVA, EVA_ID = "eva.lund@example.com", "auth0|60000000000000000000aa03"
TENANT = "acme.eu.auth0.com"


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_bytes())


def body(name: str) -> bytes:
    """What arrives: of a message of the Events API that is its data."""
    document = sample(name)
    return json.dumps(document["data"] if name.startswith("sse.") else document).encode()


def arrivals(content: bytes, headers: dict[str, str] | None = None, **rules: Any) -> list[Arrival]:
    return list(Auth0Source(("token",), TENANT, Auth0Rules(**rules)).arrivals(content, headers or {}, 0.0))


def event(document: Any, **rules: Any) -> Event:
    (arrival,) = arrivals(json.dumps(document).encode(), **rules)
    assert arrival.event is not None, arrival.reason
    return arrival.event


def created(client: str | None = None, **app_metadata: Any) -> dict[str, Any]:
    document = sample("user.created")
    del document["a0purpose"]
    document["data"]["object"]["app_metadata"] = app_metadata
    if client:
        document["data"]["context"] = {"client": {"id": client, "name": "any", "metadata": {}}}
    return dict(document)


def changed(name: str, **data: Any) -> dict[str, Any]:
    document: dict[str, Any] = sample(name)
    document["data"].update(data)
    return document


NAMES = sorted(path.stem for path in SAMPLES.glob("*.json"))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sse.offset-only"])
@pytest.mark.parametrize("created_from", ["events", "logs"])
def test_what_is_stored_gives_the_same_event_back(name: str, created_from: str) -> None:
    """Every sample is one event; its stored bytes decode to it and hold no credential of any sample."""
    (arrival,) = arrivals(body(name), created_from=created_from)

    assert arrival.event is not None
    assert decode(arrival.value) == arrival.event
    assert arrival.event.tenant == TENANT
    assert [secret for secret in SECRETS if secret.encode() in arrival.value] == []


def test_the_samples_hold_the_secrets_that_are_looked_for() -> None:
    """Else their absence would prove nothing."""
    everything = "".join(path.read_text() for path in SAMPLES.glob("*.json"))

    assert [secret for secret in SECRETS if secret not in everything] == []


def test_an_offset_alone_is_nothing() -> None:
    """It only says how far the stream has come."""
    assert arrivals(body("sse.offset-only")) == []


@pytest.mark.parametrize(
    ("name", "type_", "by", "user_id", "email"),
    [
        ("log.sapi.create-user", "sapi", "admin_api", EVA_ID, EVA),
        ("log.sapi.set-password", "password.reset", "admin_api", EVA_ID, EVA),
        ("log.sapi.set-flag", "password.expired", "admin_api", EVA_ID, EVA),
        ("log.sapi.ticket", "sapi", "admin_api", None, None),
        ("log.sapi", "sapi", "admin_api", None, None),
        ("log.scp", "password.changed", "user", EVA_ID, EVA),
        ("log.scpr", "password.reset_requested", "user", EVA_ID, EVA),
        ("log.ss", "ss", "unknown", "auth0|60000000000000000000aa01", "ida.moor@example.com"),
        ("log.sv", "sv", "user", "auth0|60000000000000000000aa02", "tom.reed@example.com"),
        ("log.fn", "fn", "unknown", None, None),
        ("log.pwd_leak", "pwd_leak", "unknown", None, "lea.holm@example.com"),
        ("user.updated.full", "user.updated", "unknown", "auth0|60000000000000000000aa04", "kai.wolf@example.com"),
    ],
)
def test_what_the_samples_become(name: str, type_: str, by: str, user_id: str | None, email: str | None) -> None:
    """Type, actor, and user: of a Management API call never the administrator who made it."""
    found = event(sample(name))

    assert (found.type, found.context.triggered_by) == (type_, by)
    assert (found.user.id, found.user.email) == (user_id, email)
    assert found.context.timestamp is not None


def test_a_profile_becomes_a_user() -> None:
    """Phone and name too; the language is where teams put it, and a name that is the address is none."""
    full, bare = event(sample("user.created.full")).user, event(created()).user
    written = event(sample("log.sapi.set-password")).user

    assert (full.username, full.phone, full.name) == ("kaiwolf", "+12025550147", "Kai Wolf")
    assert (bare.username, bare.email, bare.name) == (None, EVA, None)
    assert (written.name, written.locale) == ("Eva Lund", "de")


def test_the_username_of_a_database_connection_is_in_events_calls_and_requests() -> None:
    """In the profile, in a call that makes a user, and in a request for a new password; a masked one is none."""
    call, request = sample("log.sapi.create-user"), sample("log.scpr")
    call["data"]["details"]["request"]["body"]["username"] = "eva.l"
    request["data"]["details"]["body"]["username"] = "eva.l"
    masked = json.loads(json.dumps(call).replace("eva.l", "e***l"))

    assert [event(document).user.username for document in (call, request, masked)] == ["eva.l", "eva.l", None]


@pytest.mark.parametrize("masked", ["e*******d@e*****e.com", "9f86d081884c7d65"])
def test_a_masked_address_is_none(masked: str) -> None:
    """Log streams may mask: the user is looked up then, and no message goes to what is left of an address."""
    answered = json.loads(json.dumps(sample("log.sapi.set-password")).replace(EVA, masked))

    assert event(answered).user.email is None
    assert event(changed("log.scp", user_name=masked, details={"email": masked})).user.email is None


@pytest.mark.parametrize("name", ["user.created", "log.sapi.create-user", "log.ss"])
@pytest.mark.parametrize("created_from", ["events", "logs"])
def test_one_new_user_is_one_event(name: str, created_from: str) -> None:
    """By the event or by the log entry, as the setting says; never by both, and never by the sign-up entry."""
    counts = event(sample(name), created_from=created_from).type == "user.created"

    assert counts == ((name, created_from) in {("user.created", "events"), ("log.sapi.create-user", "logs")})


def test_no_handler_is_for_the_report_that_is_set_aside() -> None:
    """It has a type that can't be asked for."""
    with pytest.raises(HandlerError, match="no event type"):
        on(event(created(), created_from="logs").type)(late_welcome)


async def late_welcome(event: object, ctx: object) -> None: ...


@pytest.mark.parametrize(
    ("document", "rules", "by", "basis"),
    [
        (created(), {}, "unknown", "undecided"),
        (created(BACK_OFFICE), {}, "unknown", "undecided"),
        (created(BACK_OFFICE), {"admin_clients": frozenset([BACK_OFFICE])}, "admin_api", "client"),
        (created(PORTAL), {"admin_clients": frozenset([BACK_OFFICE])}, "user", "client"),
        (created(), {"admin_clients": frozenset([BACK_OFFICE])}, "unknown", "undecided"),
        (created(PORTAL), {"user_clients": frozenset([PORTAL])}, "user", "client"),
        (created(BACK_OFFICE), {"own_client": BACK_OFFICE}, "system", "client"),
        (created(created_by="hr"), {"admin_markers": ("created_by",)}, "admin_api", "app_metadata"),
        (created(created_by="hr"), {"admin_markers": ("made", "created_by=hr")}, "admin_api", "app_metadata"),
        (created(created_by="shop"), {"admin_markers": ("created_by=hr",)}, "unknown", "undecided"),
        (created(created_by=""), {"admin_markers": ("created_by",)}, "unknown", "undecided"),
        (sample("user.created"), {"admin_clients": frozenset([BACK_OFFICE])}, "unknown", "a0purpose"),
        (sample("log.scp"), {"admin_clients": frozenset([PORTAL])}, "admin_api", "client"),
        (sample("log.sapi.set-password"), {"user_clients": frozenset([DASHBOARD])}, "user", "client"),
        (sample("log.sapi.set-password"), {}, "admin_api", "sapi"),
        (sample("log.ss"), {"admin_clients": frozenset([BACK_OFFICE])}, "user", "client"),
        (changed("log.scp", details={"request": {"channel": "https://manage.auth0.com/"}}), {}, "admin_api", "channel"),
    ],
)
def test_who_triggered_it(document: Any, rules: dict[str, Any], by: str, basis: str) -> None:
    """Each rule, and that it says so: what no rule decides is unknown."""
    context = event(document, **rules).context

    assert context.triggered_by == by
    assert (context.triggered_by_basis or "").startswith(f"{basis}: ")


def test_the_marker_says_only_who_made_the_user() -> None:
    """It stays with the user for ever: who changed the user later it does not say."""
    document = created(created_by="hr") | {"type": "user.updated"}

    assert event(document, admin_markers=("created_by",)).context.triggered_by == "unknown"


def test_an_administrators_password_is_no_change_of_the_users() -> None:
    """Else the flag that it sets would be cleared at once."""
    assert event(sample("log.scp"), admin_clients=frozenset([PORTAL])).type == "scp"


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-10:00", "yesterday", "", 5, None, "2026-02-30"]
)
def test_a_time_that_can_not_be_is_none(time: Any) -> None:
    """The event is read all the same, and comes back from its bytes."""
    (arrival,) = arrivals(json.dumps(created() | {"time": time}).encode())

    assert arrival.event is not None
    assert arrival.event.context.timestamp is None
    assert decode(arrival.value) == arrival.event


def test_our_own_flag_comes_not_back_as_an_administrators() -> None:
    """What Usher's application writes is Usher's doing; another flag is nobody's."""
    own = event(sample("log.sapi.set-flag"), own_client=DASHBOARD)

    assert (own.type, own.context.triggered_by) == ("sapi", "system")
    assert event(sample("log.sapi.set-flag"), reset_flag="other").type == "sapi"


LOGS = [sample(name) for name in NAMES if name.startswith("log.")]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(LOGS),
        json.dumps({"logs": LOGS}),
        "\n".join(map(json.dumps, LOGS)),
        "\r\n".join(map(json.dumps, LOGS)) + "\r\n",
        json.dumps([entry["data"] for entry in LOGS]),
    ],
    ids=["array", "object", "lines", "lines-crlf", "api"],
)
def test_every_format_of_a_batch_gives_the_same_events(content: str) -> None:
    """Arrays, lines, an object with all of them, and the entries as the API answers: same ids, same order."""
    expected = [event(entry) for entry in LOGS]

    assert [arrival.event for arrival in arrivals(content.encode())] == expected
    assert len({found.id for found in expected}) == len(LOGS)


def test_an_event_has_one_id_by_webhook_and_by_stream() -> None:
    """So that a message is not sent for each."""
    document = created()
    message = {"offset": "abc", "event": document}

    assert event(document).uid == event(message).uid == ("auth0", TENANT, document["id"])


def test_a_bad_line_does_not_lose_its_neighbours() -> None:
    """It becomes a stub without its content; a body without any document is refused."""
    good = json.dumps(sample("log.scp"))
    first, bad, last = arrivals(f"{good}\n{{not json pw-Chosen-New-3\n{good}".encode())

    assert bad.event is None
    assert b"pw-Chosen-New-3" not in bad.value
    assert first.event == last.event is not None
    with pytest.raises(NotJson):
        arrivals(b"neither\nnor")


@pytest.mark.parametrize("document", [{}, {"type": "user.created"}, {"data": {"type": "scp"}}, 3, None, [[]], "text"])
def test_what_is_neither_becomes_a_stub(document: Any) -> None:
    """An operator sees that something came, and nothing of it."""
    for arrival in arrivals(json.dumps(document).encode()):
        assert (arrival.event, arrival.reason) == (None, "neither an event nor a log entry of Auth0")


def test_a_bridges_cloud_events_are_unwrapped() -> None:
    """Structured ones around an event or an entry, and binary ones with the envelope in their headers."""
    document = created()
    around = {"specversion": "1.0", "type": "acme.bridge", "id": "b1", "source": "/bridge", "data": document}
    entry = {**around, "data": sample("log.scp")}
    headers = {f"ce_{name}": document[name].encode() for name in ("type", "id", "time")}
    record = StoredRecord("raw", 0, 0, 0, b"key", json.dumps(document["data"]).encode(), tuple(headers.items()))

    assert event(around) == event(document)
    assert event(entry) == event(sample("log.scp"))
    read = read_record(Auth0Source(tenant=TENANT), record)
    assert read is not None
    assert read.event == event(document)


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("Bearer token", True),
        ("bearer  token", True),
        ("token", True),
        ("Basic " + base64.b64encode(b"usher:pass").decode(), True),
        ("Basic " + base64.b64encode(b"usher:wrong").decode(), False),
        ("Basic !!", False),
        ("Bearer", False),
        ("Bearer ", False),
        ("Bearer tokenx", False),
        ("\udcff", False),
        ("", False),
    ],
)
def test_a_caller_proves_itself_by_its_authorization(header: str, known: bool) -> None:
    """As a token, as the whole value, or as user and password; empty ones prove nothing."""
    source = Auth0Source(("older", "token", "usher:pass"))

    assert source.verified({"authorization": header}, b"") is known
    assert not source.verified({}, b"")
    assert not Auth0Source().verified({"authorization": header}, b"")


def test_configuration_is_not_kept() -> None:
    """Of a Management API call that is not about a user both bodies are gone: they hold keys and our own token."""
    document = sample("log.sapi")
    document["data"]["details"]["request"]["body"]["sink"]["httpAuthorization"] = "Bearer whsec-of-ours"
    document["data"]["details"]["response"]["body"]["sink"]["smtp_pass"] = "mail-pass"
    (arrival,) = arrivals(json.dumps(document).encode())

    assert b"whsec-of-ours" not in arrival.value
    assert b"mail-pass" not in arrival.value
    assert b"/api/v2/log-streams" in arrival.value


@pytest.mark.parametrize(
    "details",
    [
        {"resetUrl": "S3cretLink"},
        {"link": "see https://acme.auth0.com/lo/reset?ticket=S3cretLink now"},
        {"a": [{"b": "https://acme.auth0.com/cb#access=S3cretLink"}]},
        {"body": {"ticket": "S3cretLink"}},
        {"request": {"method": "post", "path": "/api/v2/users", "body": {"verification_ticket": "S3cretLink"}}},
        {"request": {"path": "/api/v2/users/x/identities", "body": {"anything": "S3cretLink"}}},
        {"response": {"body": {"recovery_code": "S3cretLink"}}},
        {"headers": {"Authorization": "S3cretLink", "cookie": "S3cretLink"}},
    ],
)
@pytest.mark.parametrize("code", ["sapi", "scpr", "f"])
def test_live_links_and_tokens_are_gone(details: dict[str, Any], code: str) -> None:
    """By their names, by the fields they are in, and out of URLs."""
    (arrival,) = arrivals(json.dumps(changed("log.scpr", type=code, details=details)).encode())

    assert arrival.event is not None
    assert b"S3cretLink" not in arrival.value


FIELDS = (
    "type", "data", "object", "log_id", "details", "request", "body", "path", "method", "client_id", "user_name", "user_id",
    "email", "time", "date", "specversion", "event", "offset", "logs", "context", "app_metadata",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@given(JSON)
def test_no_document_is_too_strange(document: Any) -> None:
    """Whatever it is: an event that comes back from its bytes, a stub, or nothing; never another exception."""
    for arrival in arrivals(json.dumps(document).encode(), created_from="logs", admin_markers=("a",)):
        if arrival.event is not None:
            assert decode(arrival.value) == arrival.event

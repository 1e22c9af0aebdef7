"""GenAuth's webhooks: what each sample becomes, who triggered it, which id stands in for the missing one, what is left out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher.delivery import StoredRecord
from usher.event import UNKNOWN, Event
from usher.settings import Settings, SettingsError
from usher.systems.decode import decode
from usher.systems.document import NotJson
from usher.systems.genauth.audit import event_of_entry
from usher.systems.genauth.settings import GenAuthSettings
from usher.systems.genauth.source import SECRET_HEADERS, GenAuthSource, Repeats, e164
from usher.systems.source import Arrival, arrival, event_key, read_record

SAMPLES = Path(__file__).parents[1] / "samples" / "genauth"
POOL = "64c0ffee0000000000000001"
NOA, IDA = "64c0ffee0000000000000a01", "64c0ffee0000000000000a02"
NOON = 1_740_830_400.0
"""A moment at which calls arrive: 1 March 2025, in Unix seconds. It is the start of a bucket of 120 s."""
SECRETS = (
    "d41d-hash", "salt-0a0", "encrypted-password", "session-jwt", "oauth-access", "secret-info", "pool-secret",
    "next-id-token", "next-access-token", "current-refresh", "next-refresh",
)  # fmt: skip
"""What begins every credential in the samples."""
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.json").read_bytes()


def arrivals(
    body: bytes, headers: dict[str, str] | None = None, received: float = NOON, **options: Any
) -> list[Arrival]:
    return list(GenAuthSource(**options).arrivals(body, headers or {}, received))


def event(
    body: bytes | dict[str, Any], headers: dict[str, str] | None = None, received: float = NOON, **options: Any
) -> Event:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    (came,) = arrivals(raw, headers, received, **options)
    assert came.event is not None, came.reason
    return came.event


FILES = sorted(SAMPLES.iterdir())
ALL = [path for path in FILES if not path.stem.startswith("test")]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_what_is_stored_reads_back_as_the_same_event(path: Path) -> None:
    """The canonical form of each sample decodes to the very event it was made of."""
    (came,) = arrivals(path.read_bytes())

    assert came.event is not None
    assert decode(came.value) == came.event
    assert came.event.source == "genauth"


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_no_credential_of_a_sample_is_stored(path: Path) -> None:
    """Passwords, salts, tokens and secrets are gone, also those of other systems and those within texts."""
    (came,) = arrivals(path.read_bytes())

    assert [secret for secret in SECRETS if secret.encode() in came.value] == []


def test_the_samples_hold_the_credentials_that_are_looked_for() -> None:
    """Else the test above would find nothing whatever is stored."""
    samples = b"".join(path.read_bytes() for path in ALL)

    assert [secret for secret in SECRETS if secret.encode() not in samples] == []


@pytest.mark.parametrize(
    ("name", "type_", "user", "actor"),
    [
        ("user.created.import", "user.created", IDA, "admin_api"),
        ("user.created.admin", "user.created", IDA, "admin_api"),
        ("user.created.self", "user.created", NOA, "user"),
        ("register", "user.created", NOA, "user"),
        ("user.updated", "user:updated", NOA, UNKNOWN),
        ("user.updated.must-change", "password.expired", NOA, UNKNOWN),
        ("user.password-changed", "user:password-changed", IDA, UNKNOWN),
        ("user.password-update-remind", "password.expired", NOA, "system"),
        ("user.email-verified", "user:email-verified", NOA, UNKNOWN),
        ("mfa.verified", "mfa:verified", NOA, "user"),
        ("login.without-envelope", "login", NOA, "user"),
        ("refresh-token", "refresh-token", NOA, "user"),
        ("user.deleted", "user.deleted", IDA, UNKNOWN),
        ("group.member-added", "group:member-added", None, UNKNOWN),
    ],
)
def test_what_a_sample_becomes(name: str, type_: str, user: str | None, actor: str) -> None:
    """Type, user and actor of each; two users in one call are no user."""
    found = event(sample(name))

    assert (found.type, found.user.id, found.context.triggered_by) == (type_, user, actor)
    assert found.context.triggered_by_basis


@pytest.mark.parametrize("name", ["test", "test.debug-button"])
def test_a_test_call_is_nothing(name: str) -> None:
    """The console's button is answered well and leaves nothing."""
    assert arrivals(sample(name)) == []


def test_an_imported_user_is_complete() -> None:
    """Address, number with its country, name, language and time, and the pool is the tenant."""
    found = event(sample("user.created.import"))

    assert asdict(found.user) == {
        "id": IDA,
        "username": None,
        "email": "ida.moreno@example.com",
        "phone": "+41440000017",
        "name": "Ida Moreno",
        "locale": "de-CH",
        "disabled": False,
    }
    assert (found.tenant, found.raw_type) == (POOL, "user:created")
    assert found.time is not None
    assert found.time.isoformat() == "2025-03-01T08:12:30+00:00"
    assert event_key(found) == IDA.encode()


def test_a_username_is_the_users() -> None:
    """Where the pool has user names."""
    assert event(sample("user.updated")).user.username == "noa.lindqvist"


def test_a_form_is_read_like_json() -> None:
    """Nested names, an empty value for null, a number without its country."""
    body = (SAMPLES / "user.created.form.txt").read_bytes()

    for found in (
        event(body, FORM),
        event(body),
        event(b"x=1&" + body, {"content-type": FORM["content-type"].title()}),
    ):
        assert (found.type, found.context.triggered_by) == ("user.created", "admin_api")
        assert (found.user.id, found.user.email, found.user.phone) == (IDA, "ida.moreno@example.com", "+8613800000017")
        assert found.payload["data"]["registerSource"] == ["import:excel"]


def test_a_form_with_a_document_as_data() -> None:
    """The other way in which a form may carry what is nested."""
    data = json.dumps({"id": IDA, "password": "hidden-one", "registerSource": ["import:excel"]})
    (came,) = arrivals(f"eventName=register&data={quote_plus(data)}".encode(), FORM)

    assert came.event is not None
    assert (came.event.id, came.event.context.triggered_by) == (f"created-{IDA}", "admin_api")
    assert b"hidden-one" not in came.value


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b"a=1&b", b"&".join([b"a=1"] * 3000), b"a" + b"[x]" * 40 + b"=1", b"\xff=1", b"eventName=x&data={"],
    ids=["empty", "text", "broken", "many", "deep", "bytes", "half"],
)
def test_what_is_neither_json_nor_a_form_is_refused(body: bytes) -> None:
    """Whoever sends it sent something else."""
    with pytest.raises(NotJson):
        GenAuthSource().arrivals(body, FORM, NOON)


@pytest.mark.parametrize(
    "body", [b"[]", b"7", b'{"data":{"password":"hunter-2"}}', b'{"eventName":""}', b"[" * 300 + b"]" * 300]
)
def test_what_is_no_event_leaves_a_stub_and_nothing_of_it(body: bytes) -> None:
    """Its size and digest, the pool, and the reason."""
    (came,) = arrivals(body, {"x-authing-userpool-id": POOL})

    assert came.event is None
    assert came.reason
    assert b"hunter" not in came.value
    assert POOL.encode() in came.value


@pytest.mark.parametrize(
    ("user", "actor", "basis"),
    [
        ({"userSourceType": "adminCreated"}, "admin_api", "userSourceType adminCreated"),
        ({"userSourceType": "excel"}, "admin_api", "userSourceType excel"),
        ({"userSourceType": "register", "registerSource": ["import:x"]}, "user", "userSourceType register"),
        ({"userSourceType": "syncTask"}, "system", "userSourceType syncTask"),
        ({"userSourceType": "sync"}, "system", "userSourceType sync"),
        (
            {"userSourceType": "new one", "registerSource": ["import:manual"]},
            "admin_api",
            "registerSource import:manual",
        ),
        ({"registerSource": "import:excel"}, "admin_api", "registerSource import:excel"),
        ({"registerSource": ["basic:email"]}, "user", "registerSource basic:email"),
        ({"registerSource": ["social:github"]}, "user", "registerSource social:github"),
        ({"registerSource": ["basic:email", "import:manual"]}, "admin_api", "registerSource import:manual"),
        ({"registerSource": ["ldap:x"]}, UNKNOWN, "neither userSourceType nor registerSource says it"),
        ({"registerSource": [{}]}, UNKNOWN, "neither userSourceType nor registerSource says it"),
        ({}, UNKNOWN, "neither userSourceType nor registerSource says it"),
    ],
)
def test_who_made_a_user(user: dict[str, Any], actor: str, basis: str) -> None:
    """userSourceType decides first, then registerSource; if neither does, it is unknown."""
    context = event({"eventName": "user:created", "data": {"id": IDA, **user}}).context

    assert (context.triggered_by, context.triggered_by_basis) == (actor, basis)


@pytest.mark.parametrize(
    ("phone", "code", "expected"),
    [
        ("13800000017", "86", "+8613800000017"),
        ("07400 123456", "+44", "+447400123456"),
        ("2025550123", "1", "+12025550123"),
        ("+41440000017", "86", "+41440000017"),
        ("0440000017", "41", "+41440000017"),
        ("not a number", "86", "not a number"),
        ("13800000017", "nowhere", "13800000017"),
        ("13800000017", "999", "13800000017"),
        (None, "86", None),
    ],
)
def test_a_number_and_its_country_code_are_one_number(phone: str | None, code: str, expected: str | None) -> None:
    """In E.164, without what is dialled only inside the country; what can't be understood stays as it was."""
    assert e164(phone, code) == expected


def test_the_pool_is_the_configured_one_else_the_headers_else_the_bodys() -> None:
    """So that webhook and poller name one tenant."""
    body, headers = sample("user.created.import"), {"x-authing-userpool-id": "from-the-header"}

    assert event(body, headers, tenant="configured").tenant == "configured"
    assert event(body, tenant="configured", strict=True).tenant == POOL
    assert event(body, headers).tenant == "from-the-header"
    assert event(body).tenant == POOL
    assert event(sample("user.password-changed")).tenant == ""


@pytest.mark.parametrize("header", SECRET_HEADERS)
def test_the_secret_counts_in_each_header(header: str) -> None:
    """Any secret in any of the three; a wrong one, an empty one or none does not."""
    source = GenAuthSource(["old", "new"])

    assert source.verified({header: "new"}, b"")
    assert source.verified({header: "old"}, b"")
    assert not source.verified({header: "other"}, b"")
    assert not source.verified({header: ""}, b"")
    assert not source.verified({"authorization": "new"}, b"")
    assert not GenAuthSource().verified({header: ""}, b"")


def test_an_empty_secret_is_refused() -> None:
    """With it anybody could send."""
    with pytest.raises(ValueError, match="empty"):
        GenAuthSource([""])


def test_created_and_register_are_one_event() -> None:
    """A pool may send both for one user: the id is the user's, whenever they come."""
    first, second = event(sample("user.created.self")), event(sample("register"), received=NOON + 86_400)

    assert first.uid == second.uid


def test_an_update_is_distinguished_by_its_own_time() -> None:
    """A repeat days later is the same update; another update at once is another."""
    document = json.loads(sample("user.updated"))
    first = event(document)
    again = event(document, received=NOON + 86_400)
    document["data"]["user"]["updatedAt"] = "2025-03-02T08:00:00.001Z"

    assert first.id == again.id != event(document).id


def test_a_token_of_the_moment_makes_no_other_event() -> None:
    """Fields that are not stored do not distinguish two calls."""
    document = json.loads(sample("user.updated"))
    first = event(document)
    document["data"]["user"]["token"] = "another"

    assert event(document).id == first.id


MOMENT = st.floats(0, 4e9, allow_nan=False)


@given(MOMENT, st.floats(0, 1e6), st.floats(1, 1e4))
def test_a_bucket_never_swallows_a_second_change(at: float, later: float, window: float) -> None:
    """Calls that are a window or more apart never share an id, wherever the edges are."""
    body = sample("user.password-changed")
    one = event(body, received=at, repeat_window=window)
    two = event(body, received=at + window * 1.000001 + later, repeat_window=window)

    assert one.id != two.id


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), MOMENT)
def test_repeats_within_the_window_are_one_event_whatever_the_edges(gaps: list[float], start: float) -> None:
    """Seen by one process: a call is the first one of its window, or that first one's repeat; never swallowed, never doubled."""
    window, repeats, now = 120.0, Repeats(120.0), start
    first_at, first_id = None, None
    for gap in gaps:
        now += gap
        found = repeats.joined(event(sample("user.password-changed"), received=now, repeat_window=window), now)
        if first_at is None or now - first_at >= window:
            assert found.id != first_id
            first_at, first_id = now, found.id
        else:
            assert found.id == first_id


def test_repeats_of_different_users_and_pools_are_not_joined() -> None:
    """Each user, and each pool, has repeats of its own."""
    repeats = Repeats(120.0, most=2)

    def id_of(user: str, tenant: str = POOL, at: float = NOON) -> str:
        body = {"eventName": "user:password-changed", "data": {"userId": user}}
        return repeats.joined(event(body, received=at, tenant=tenant), at).id

    first = id_of("a", at=NOON - 1)
    assert id_of("a") == first
    assert id_of("b") != first
    assert id_of("a", tenant="other") != first  # the third thing to be known: the first is forgotten
    assert id_of("a") != first


@given(
    st.binary(max_size=80)
    | st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner)).map(json.dumps)
)
@pytest.mark.heavy
def test_no_record_of_a_raw_topic_is_too_strange(value: bytes | str) -> None:
    """It is an event, a stub that says why not, or nothing; reading it never fails."""
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    came = read_record(GenAuthSource(), StoredRecord("raw", 0, 0, 0, None, raw))

    assert came is None or came.event is not None or came.reason


def test_a_record_of_a_raw_topic_has_one_id_for_ever() -> None:
    """Read again after a restart, a record is the same event: only its own timestamp counts."""
    record = StoredRecord("genauth-raw", 0, 7, int(NOON * 1000) + 119_999, None, sample("user.password-changed"), ())
    source = GenAuthSource()

    first, again = read_record(source, record), read_record(source, record)

    assert first is not None
    assert again == first
    assert first.event is not None


@pytest.mark.parametrize(
    ("given", "brand", "country", "pool"),
    [
        ({}, "genauth", "86", None),
        ({"URL": "https://api.authing.cn", "ACCESS_KEY_ID": "pool", "ACCESS_KEY_SECRET": "s"}, "authing", "86", "pool"),
        ({"URL": "https://core.id.example.com", "COUNTRY_CODE": "+44"}, "authing", "44", None),
        ({"URL": "https://core.id.example.com", "BRAND": "genauth", "USER_POOL_ID": "other"}, "genauth", "86", "other"),
        ({"URL": "https://genauth.ai.example.com"}, "authing", "86", None),
    ],
)
def test_settings_that_follow_from_others(given: dict[str, str], brand: str, country: str, pool: str | None) -> None:
    """The brand from the address, the pool from the access key, unless they are set."""
    environ = {f"USHER_GENAUTH__{name}": text for name, text in given.items()}
    settings = Settings.load(environ, env_file=None).tenants_of("genauth").get("", GenAuthSettings())
    assert isinstance(settings, GenAuthSettings)

    assert (settings.brand, settings.country_code, settings.user_pool_id) == (brand, country, pool)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("COUNTRY_CODE", "CN", "a country code, as in 86"),
        ("URL", "https://api.authing.cn/api/v3", "without a path"),
        ("BRAND", "auth0", "'genauth' or 'authing'"),
        ("REPEAT_WINDOW", "0s", "greater than 0"),
        ("MESSAGES_PER_MINUTE", "0", "a whole number from 1"),
    ],
)
def test_settings_that_can_not_be(name: str, value: str, hint: str) -> None:
    """Each mistake is named with its value and the way out."""
    with pytest.raises(SettingsError) as caught:
        Settings.load({f"USHER_GENAUTH__{name}": value}, env_file=None)

    (problem,) = caught.value.problems
    assert problem.startswith(f"USHER_GENAUTH__{name}=")
    assert hint in problem


_TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+12:00",
        "2025-03-01T12:00:00.000Z",
        "2025-03-01",
        "+86",
        "9" * 5000,
        "13800000017",
    ]
)
_FIELDS = st.sampled_from(
    ["id", "userId", "email", "phone", "phoneCountryCode", "name", "locale", "createdAt", "updatedAt", "lastLogin", "userPoolId",
     "registerSource", "userSourceType", "password", "updates", "users", "user", "resetPasswordOnNextLogin"]
)  # fmt: skip
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXTS | st.just(7.5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS, inner, max_size=6),
    max_leaves=12,
)
_CALLS = st.sampled_from(
    ["user:created", "register", "user:updated", "login", "user:password-changed", "user:deleted", "group:deleted", "x"]
)
_POOLS = st.text(max_size=8) | st.just("pool-\udcff") | st.just("p" * 5000)
_DATA = st.dictionaries(_FIELDS, _VALUES, max_size=9)


@given(_CALLS, _DATA, _POOLS, MOMENT)
def test_whatever_a_call_holds_what_is_stored_reads_back_as_the_same_event(
    name: str, data: dict[str, Any], pool: str, received: float
) -> None:
    """Times beyond all calendars, numbers of any length, headers that are no text: the event stands, and can be asked for its time."""
    body = json.dumps({"eventName": name, "data": data}).encode()
    (came,) = arrivals(body, {"x-authing-userpool-id": pool}, received)

    assert came.event is not None
    assert decode(came.value) == came.event
    assert came.event.time is None or came.event.time.year < 10_000
    assert event_key(came.event)


_ENTRY_FIELDS = st.sampled_from(
    [
        "resourceType",
        "operationType",
        "operationParam",
        "targetValue",
        "originValue",
        "timestamp",
        "requestId",
        "success",
        "adminUserId",
    ]
)
_INNER = st.dictionaries(st.sampled_from(["userId", "id", "password", "newPassword", "data"]), _VALUES, max_size=4)
_ENTRY_VALUES = _VALUES | _INNER.map(json.dumps) | st.sampled_from(["user", "update", "create", "half \udcff"])


@given(st.dictionaries(_ENTRY_FIELDS, _ENTRY_VALUES, max_size=9) | _VALUES, st.booleans())
def test_whatever_an_audit_entry_holds_it_is_an_event_that_can_be_stored_or_none(entry: Any, likely: bool) -> None:
    """One strange entry must not hold up the feed; nothing of its texts is kept."""
    if likely and isinstance(entry, dict):
        entry = {**entry, "resourceType": "user", "operationType": "update"}
        entry["operationParam"] = {"userId": "u \udcff", "password": "hunter-2"}
    found = event_of_entry(entry, POOL)

    assert found is not None or not (likely and isinstance(entry, dict)) or entry.get("success") is False
    if found is not None:
        stored = arrival(found).value
        assert decode(stored) == found
        assert b"hunter-2" not in stored

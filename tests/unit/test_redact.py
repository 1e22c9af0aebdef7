"""`scrub`: what leaves in a log line, a header or on a screen names nobody and opens nothing."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from usher.event import Event, User
from usher.redact import Ours, about, know, scrub, scrub_field


@pytest.fixture(autouse=True)
def _nothing_is_known() -> Iterator[None]:
    yield
    know("here", [])
    know("there", [])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("no mailbox kim.berg+x@example.com, sorry", "no mailbox <email>, sorry"),
        ("<kim@example.com>: refused", "<<email>>: refused"),
        ("to 'jörg@bücher.example'", "to <email>"),
        ("The number +1 (202) 555-0123 is unverified", "The number <number> is unverified"),
        ("to:+447700900123", "to:<number>"),
        ("id 4915112345678!", "id <number>!"),
        ("ann.berg@localhost is wrong", "<email> is wrong"),
        ('"ann berg"@example.org is wrong', "<email> is wrong"),
        ("GET /people/ann.berg%40example.org", "GET <email>"),
        ("GET /people/ann.berg%2540example.org", "GET <email>"),
        (r"{\"mail\": \"ann\u0040example.org\"}", '{"mail": "<email>"}'),
        ("ann.berg&#64;example.org", "<email>"),
        ("ann.berg\uff20example.org", "<email>"),
        ("call +44\u00b77700\u00b7900123 now", "call <number> now"),
        ("call +44\u20117700\u2011900123 now", "call <number> now"),
        ("call %2B447700900123 now", "call <number> now"),
        ("call 07.700.900.123 now", "call <number> now"),
        ("call 07700/900123 now", "call <number> now"),
    ],
)
def test_people_are_taken_out(text: str, left: str) -> None:
    """Addresses and numbers, however they are written."""
    assert scrub(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2x",
        'password: "hunter2x and more"',
        "{'new_password': 'hunter2x and more'}",
        '{"password_hash":"hunter2x"}',
        "Authorization: Bearer hunter2x.hunter2x",
        "authorization: basic aHVudGVyMng6aHVudGVyMng=",
        "key SG.hunter2xhunter2x.hunter2x",
        "smtp://usher:hunter2x@mail.example.com:587",
        "https://:hunter2x@example.com",
        "https://usher:p@hunter2x@example.com",
        "https://hunter2x@example.com/",
        "api_key=hunter2x api-key: hunter2x apikey = 'hunter2x'",
        "?token=hunter2x&x=1",
        "access_token: hunter2x",
        "reset code: hunter2x",
        "otp=hunter2x, pin: hunter2x",
        "user[password]=hunter2x",
        "/maps?a=b:c&key=hunter2x",
        "code: token: hunter2x",
        "error code: hunter2x",
        "Incorrect API key provided: hunter2x",
        "token: nothunter2x",
        "token='hunter2x and code: hunter2x' password=hunter2x",
        "jwt eyJhbGciOiJIUzI1NiJ9.hunter2x.hunter2x",
        "password hunter2x is wrong",
        "Authorization: Token hunter2x",
        'Authorization: Digest username="kim", response="hunter2x"',
        "{'Cookie': 'lang=en; sid=hunter2x'}",
        "Cookie: lang=en; sid=hunter2x",
        "token%3Dhunter2x",
        r"{\"token\": \"hunter2x\"}",
        "invalid (ticket=hunter2x)",
    ],
)
def test_credentials_are_taken_out(text: str) -> None:
    """By their names, or by their looks."""
    left = scrub(text)

    assert "hunter2x" not in left
    assert "aHVudGVy" not in left
    assert "<secret>" in left


@pytest.mark.parametrize(
    "text",
    [
        "503 Service Unavailable",
        "Twilio error code: 21610",
        "closed by the server, code: 404",
        "status code = 503",
        "token: not found",
        "auth: is not configured",
        "secret: missing",
        "no answer within 10 s",
        "line 12: 'name' is undefined",
        "twilio answered 400 (error 21614): not a mobile number",
        "status_code=503, host: id.example.com",
        "Cannot connect to host 127.0.0.1:41279 ssl:default [Connect call failed ('127.0.0.1', 41279)]",
        "Unable to connect to 10.20.30.40:9092, 10.20.30.41:9092",
        "[2001:db8::7]:9092 refused, fe80::1ff:fe23:4567:890a%eth0 too",
        "ec2-203-0-113-25.eu-west-1.compute.example.com:5671 gave no answer",
        "broker-1234567.example.org:9092 gave no answer",
        "since 2026-11-27 17:25:41, and again at 2026-11-27T17:25:41.123456+00:00",
        "request 0190b3c2-1234-7567-8901-123456789012 failed",
        "relation users_2 has 42 rows",
        "550 5.1.1 no such mailbox, 0x80070005",
        "the password was changed by an administrator",
        "force_password_change.py:42, handlers/reset_token.py: 7",
    ],
)
def test_what_helps_stays(text: str) -> None:
    """A reason must still be one."""
    assert scrub(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("500, message='Oops', url='https://hooks.example.org:8443/T0/B0/hunter2x?a=1#b'", "500, message='Oops', url='https://hooks.example.org:8443/…'"),
        ("see https://id.example/lo/reset?ticket=hunter2x.", "see https://id.example/…."),
        ("https://id.example/a%20hunter2x is wrong", "https://id.example/… is wrong"),
        ("(https://id.example/hunter2x)", "(https://id.example/…)"),
        ("Max retries exceeded with url: /T0/B0/hunter2x (Caused by x)", "Max retries exceeded with url: /… (Caused by x)"),
        ("no answer from https://id.example.org:8443/", "no answer from https://id.example.org:8443/"),
    ],
)  # fmt: skip
def test_of_a_url_only_the_server_is_kept(text: str, left: str) -> None:
    """A path may be all that it takes to get in."""
    assert scrub(text) == left


def test_a_text_of_ours_stays_as_it_is() -> None:
    """A command can be pasted: numbers, addresses of servers and paths are in it, and it is not cut off. A known secret is not."""
    command = "kafka-consumer-groups.sh --bootstrap-server 10.0.0.1:9092 --to-offset 12345678 " + "--topic events " * 40
    know("here", ["s3cr3tHOOK"])

    assert scrub(Ours(command)) == command.strip()
    assert scrub(ValueError(Ours(command))) == command.strip()
    assert scrub(scrub("ask ops at 10.0.0.1")) == "ask ops at 10.0.0.1"
    assert "s3cr3t" not in scrub(Ours("--password s3cr3tHOOK"))


SECRETS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=6, max_size=40
).filter(lambda text: not any(text in mask for mask in ("<secret>", "<email>", "<number>", "<name>", "<personal>")))
ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent": lambda text: quote(text, safe=""),
    "percent in lower case": lambda text: re.sub("%..", lambda match: match[0].lower(), quote(text, safe="")),
    "form": quote_plus,
    "json": json.dumps,
    "json in json": lambda text: json.dumps({"text": text}, ensure_ascii=False),
    "python": repr,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of a login": lambda text: base64.b64encode(f"kim:{text}".encode()).decode(),
    "base64 of more": lambda text: base64.urlsafe_b64encode(f"ab{text}c".encode()).decode(),
    "hex": lambda text: text.encode().hex(),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(SECRETS)
def test_a_known_secret_is_masked_in_every_spelling(encoding: str, secret: str) -> None:
    """A setting's secret has no shape: it is found because it is known, also as others quote it."""
    spelt = ENCODINGS[encoding](secret)
    know("here", [secret])
    left = scrub(Ours(f"calling {spelt} failed"))

    assert spelt not in left
    assert "<secret>" in left
    if not any(char in "\"'" for char in secret):
        assert len(left) <= len("calling  failed") + len(spelt) + 30


@pytest.mark.parametrize("part", ["services/T0/s3cr3tHOOK", "s3cr3tHOOK", "kim:pa55word", "pa55word", "l0ngerValue"])
def test_the_parts_of_a_secret_url_are_masked(part: str) -> None:
    """The server quotes the path and not the host."""
    know("here", ["https://kim:pa55word@chat.example.org/services/T0/s3cr3tHOOK?sig=l0ngerValue"])

    assert part not in scrub(Ours(f"no hook {part} here"))
    assert scrub(Ours("no services at chat.example.org")) == "no services at chat.example.org"


def test_a_short_secret_is_masked_as_a_value_only() -> None:
    """As a part of other words it would make every text unreadable."""
    know("here", ["dev1", "abc"])

    assert scrub(Ours("dev1ce dev1: --password=dev1, 'dev1'")) == "dev1ce dev1: --password=<secret>, '<secret>'"
    assert scrub(Ours("key=abc")) == "key=abc"


def test_a_secret_that_was_replaced_is_no_secret_any_more() -> None:
    """What a file held before it was renewed."""
    know("here", ["first-secret"])
    know("there", ["other-secret"])
    know("here", ["second-secret"])

    assert scrub(Ours("first-secret second-secret other-secret")) == "first-secret <secret> <secret>"


EVENT = Event(
    id="1", type="user.created", raw_type="user.created", source="authgear",
    user=User(id="u-1", username="annberg", email="Ann.Berg@example.org", phone="+447700900123", name="Ann Sofie Berg"),
    payload={"realmName": "main", "user": {"street": "1 Elm Street", "nickname": "Annie-B", "status": "active", "given_name": "Zoe"},
             "said": ["O\u2019Hara", "see the door"]},
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("no user annberg here", "no user <name> here"),
        ("BERG, ANN is unknown", "<name>, <name> is unknown"),
        ("Ann Sofie Berg is unknown", "<name> is unknown"),
        ("1 elm street is no address", "<personal> is no address"),
        ("Annie-B, O\u2019Hara: see the door", "<personal>, <personal>: <personal>"),
        ("no ann.berg@localhost and no kim.berg@example.com", "no <email> and no <email>"),
        ("no street 1 Elm Street at https://x/1%20Elm%20Street", "no street <personal> at https://x/…"),
        ("no mailbox ann.berg, Zoe", "no mailbox <name>, <personal>"),
        ("GET /people?q=Ann%20Sofie%20Berg", "GET /people?q=<name>"),
        ("bergen is active in realm main, u-1 is not", "bergen is active in realm main, u-1 is not"),
    ],
)
def test_where_an_attempt_fails_what_its_event_holds_is_masked(text: str, left: str) -> None:
    """Names and streets have no shape. Words that say how things are stay, and so do ids."""
    with about(EVENT):
        assert scrub(text) == left
    assert "<name>" not in scrub(text)
    assert "<personal>" not in scrub(text)


def test_the_result_is_one_short_line() -> None:
    """Headers are copied into every later record."""
    assert scrub("a\n  b\tc\r\n") == "a b c"
    assert scrub("x" * 1000) == "x" * 299 + "…"
    assert scrub("x" * 1000, limit=10) == "x" * 9 + "…"


def test_what_can_not_be_encoded_is_replaced() -> None:
    """It is to become the bytes of a header."""
    assert scrub("odd \ud800 text").encode() == b"odd ? text"


@given(st.text(), st.integers(2, 400))
def test_scrubbing_is_bounded_and_final(text: str, limit: int) -> None:
    """No longer than the limit, one line, nothing that looks like an address left; and always encodable."""
    left = scrub(text, limit)

    assert len(left) <= limit
    assert len(left.splitlines()) <= 1
    left.encode()


PIECES = st.sampled_from(
    ["password", "token", "ann@example.org", "https://h/x", "Cookie", "key", "+44 7700 900123", *"ab01 @./:=<>\"'%-"]
)


@given(st.lists(PIECES, max_size=12).map("".join))
@example('Cookie:password:"')
@example("Cookiehttps://h/x'ann@example.org")
def test_what_was_scrubbed_stays_as_it_is(text: str) -> None:
    """A dead letter's error is shown again, and logged again."""
    once = str.__str__(scrub(text))
    assert scrub(once) == once


@example("'@example.com", "")
@given(st.emails(), st.text("abc ,;()<>", max_size=5))
def test_no_address_gets_through(address: str, around: str) -> None:
    """Whatever stands around it, the mailbox and its domain are not together any more."""
    assert address not in scrub(f"{around}{address}{around}")


def test_a_field_that_was_scrubbed_before_a_secret_was_known_is_scrubbed_again() -> None:
    """Short fields are scrubbed once, and kept; what is a secret since is none of those."""
    assert scrub_field("it is s3cr3tHOOK") == "it is s3cr3tHOOK"
    know("here", ["s3cr3tHOOK"])
    assert scrub_field("it is s3cr3tHOOK") == "it is <secret>"
    know("here", [])
    assert scrub_field("it is s3cr3tHOOK") == "it is s3cr3tHOOK"


@pytest.mark.parametrize(
    "text", ["to ann.berg@example.org", Ours("offset 4915112345678"), "offset 4915112345678", "ok"]
)
def test_a_field_reads_alike_each_time(text: str) -> None:
    """Whether it is scrubbed or remembered; a text of ours stays one, beside one of others that reads the same."""
    first, second = scrub_field(text), scrub_field(text)
    assert first == second == (text if isinstance(text, Ours) else scrub(text))

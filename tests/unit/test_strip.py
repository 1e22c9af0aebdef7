"""Documents without credentials: which shapes hold one, and what is left as it is."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import usher.systems.strip as strip_module
from usher.redact import shapes
from usher.systems.decode import decode
from usher.systems.document import dump
from usher.systems.strip import strip

SECRET = "h4nter2"
JSON = json.dumps({"password": SECRET})


def _unpadded(text: str) -> str:
    return base64.b64encode(text.encode()).decode().rstrip("=")


HIDDEN: dict[str, Any] = {
    # pairs of name and value
    "pair": ["password", SECRET],
    "pairs": [["user", "kim"], ["password", SECRET]],
    "k-v": {"k": "password", "v": SECRET},
    "name-value": {"name": "password", "value": SECRET},
    "name-values": {"name": "password", "values": [SECRET]},
    "Name-Value": {"Name": "password", "Value": SECRET},
    "key-value": {"key": "api_key", "value": SECRET},
    "type-value": {"type": "password", "value": SECRET},
    "a change": {"attribute": "userPassword", "old": SECRET, "new": SECRET},
    "headers": [{"name": "Authorization", "value": f"Token {SECRET}"}],
    "header pairs": [["Authorization", SECRET], ["Host", "id.example.org"]],
    "json patch": {"changes": [{"op": "replace", "path": "/password", "value": SECRET}]},
    "scim patch": {"Operations": [{"op": "replace", "value": {"password": SECRET}}]},
    "graphql": f'mutation {{ login(password: "{SECRET}") }}',
    # texts of several fields
    "form": f"name=kim&password={SECRET}&a=b",
    "ini": f"[db]\npassword = {SECRET}\n",
    "yaml": f"user: kim\npassword: {SECRET}\n",
    "environment": f"export API_KEY={SECRET}",
    "dsn": f"user=kim;password={SECRET};host=x",
    "ldif": f"dn: uid=kim\nuserPassword: {SECRET}",
    "python": f"{{'password': '{SECRET}'}}",
    "multipart": f'Content-Disposition: form-data; name="password"\r\n\r\n{SECRET}\r\n',
    "xml": f"<user><password>{SECRET}</password></user>",
    "xml of pairs": f'<entry key="password">{SECRET}</entry>',
    "xml attribute": f'<property name="password" value="{SECRET}"/>',
    "header line": f"Authorization: Token {SECRET}",
    "cookie line": f"Cookie: lang=en; sid={SECRET}",
    "curl": f"curl -H 'X-Api-Key: {SECRET}' https://id.example.org",
    # links
    "query": f"https://h.example/reset?token={SECRET}",
    "fragment": f"https://h.example/cb#access_token={SECRET}&x=1",
    "path": f"https://h.example/reset-password/{SECRET}xyz1",
    "login in a url": f"postgres://kim:{SECRET}@db.example.org/x",
    "otpauth": f"otpauth://totp/kim?secret={SECRET}",
    # by their looks
    "bearer": f"Bearer {SECRET}{SECRET}",
    "basic": "Basic " + base64.b64encode(f"kim:{SECRET}".encode()).decode(),
    "jwt": f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.{SECRET}",
    "pem": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    "bcrypt": f"$2b$12${SECRET}abcdefghijk",
    "argon2": f"$argon2id$v=19$m=65536,t=3,p=4${SECRET}${SECRET}",
    "prose": f"Your password is {SECRET}",
    "german prose": f"Ihr Passwort lautet {SECRET}",
    # documents and forms within texts, however they are encoded
    "json": JSON,
    "json in json": json.dumps({"kept": json.dumps([JSON])}),
    "pairs in json": json.dumps([["password", SECRET]]),
    "percent": quote(JSON),
    "percent twice": quote(quote(f"password={SECRET}")),
    "base64 of json": base64.b64encode(JSON.encode()).decode(),
    "base64 of a form": base64.b64encode(f"password={SECRET}".encode()).decode(),
    "base64 of json in lines": _unpadded(json.dumps({"password": f"{SECRET}1"}, indent=2)),
    "base64 of json with a blank": _unpadded('{ "password": "' + SECRET + '" }'),
    "base64 of a form without padding": _unpadded(f"a=bc&password={SECRET}"),
    "a key": {"key": SECRET},
    "a token of a vendor": f"ghp_{SECRET}{SECRET}{SECRET}",
    "a key of a vendor": f"sk_live_{SECRET}{SECRET}",
    "html": f"password&#61;{SECRET}",
    "escapes": f"p\\u0061ssword={SECRET}",
    "wide letters": f"ｐａｓｓｗｏｒｄ={SECRET}",  # noqa: RUF001
}
NEEDED: dict[str, Any] = {
    "an address with a plus": "kim+code=1@example.org",
    "an address": "token.kim@example.org",
    "a type": "password.reset",
    "a type with a colon": "user:password-update-remind",
    "a urn": "urn:ietf:params:oauth:token-type:access_token",
    "actions": ["UPDATE_PASSWORD", "CONFIGURE_TOTP"],
    "other actions": ["UPDATE_PASSWORD", "UPDATE_PROFILE"],
    "terms": ["UPDATE_PASSWORD", "TERMS_AND_CONDITIONS"],
    "groups": ["/secret-santa", "/sales"],
    "a role": {"role": {"id": "1", "key": "store_manager", "name": "Manager"}},
    "a uuid": "123e4567-e89b-12d3-a456-426614174000",
    "an id": "5f702fcc913544c358cb2123",
    "ways to log in": ["password", "oob_otp_sms"],
    "amr": ["pwd", "otp"],
    "a sentence": "Wrong email or password.",
    "a sentence with a date": "The password was reset at 2026-01-05T09:30:00Z",
    "a basis": "refresh-token: users do this themselves",
    "a picture": "https://id.example.org/u/kim.jpg?s=80&d=mm",
    "a return address": "https://app.example.org/callback?state=1",
    "a login id": {"key": "email", "type": "email", "value": "kim@example.org"},
    "flags": {"password_expired": True, "must_change_password": "true", "passwordChanged": False, "password": None},
    "dates": {"passwordLastSetAt": "2026-01-05T09:30:00Z", "password_changed_at": 1767605400},
    "a connection": "Username-Password-Authentication",
    "a browser": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
    "a scope": "openid profile email offline_access",
    "a grant": "urn:ietf:params:oauth:grant-type:password",
    "a phone": "+44 7700 900123",
    "names": ["Mary Pass", "Secret, Agnes", "Key & Peele", "陈密"],
    "a session": {"session": {"id": "s1", "type": "idp"}},
    "an event": {"type": "user.password", "data": {"kept": 1}},
    "a text like a document": "[sic]",
}


@pytest.mark.parametrize("shape", HIDDEN)
def test_a_credential_is_taken_out_of_every_shape(shape: str) -> None:
    """When it comes in, and again when it is read: what another producer wrote has no credentials for a handler either."""
    event = {"type": "user.created", "payload": {"kept": "kept", "x": {"deep": [HIDDEN[shape]]}}}

    assert SECRET not in json.dumps(strip(event), ensure_ascii=False)
    assert strip(event)["payload"]["kept"] == "kept"
    assert SECRET not in json.dumps(decode(dump(event)).payload)


@pytest.mark.parametrize("what", NEEDED)
def test_what_a_handler_needs_stays_as_it_is(what: str) -> None:
    """The very same object: types, addresses, flags, dates, names, links that open nothing."""
    assert strip(NEEDED[what]) is NEEDED[what]


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([*map(str, HIDDEN.values())]),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["password", "value", "name", "key"]), inner)
    ),
    max_leaves=20,
)


@given(JSONS)
@example({"Name": "APIKEY=A", "Value": 0})
def test_what_was_stripped_holds_nothing_more_to_strip(document: Any) -> None:
    """So an event is the same when it comes in and when it is read."""
    once = strip(document)

    assert strip(once) is once


def _thorough(document: Any) -> Any:
    """`strip` without what makes it quick: every text is looked at as if it had every mark, and none is known from before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strip_module, "_marks_in", lambda _texts: [""])
        patch.setattr(strip_module, "_plain_texts", _Forgetful())
        patch.setattr(shapes, "_names_nothing", lambda _text: False)
        patch.setattr(shapes, "_OPENERS", [""])
        return strip(document)


class _Forgetful(set[str]):
    """A set that keeps nothing."""

    def add(self, _text: str) -> None: ...


PIECES = st.sampled_from([
    *("https://", "://", ":", "=", "/", "?", "&", "@", " ", ".", "%", '"', "\\", ": ", "_", "-", "\n", "\u017f", "\u212a"),
    *("cookie", "authorization", "Cookie", "token", "password"),
    *("reset", "Reset-Password", "re\u017fet", "login-actions", "one-time", "tIcKet"),
    *("name", "key", "id", "value", "code is ", "bearer ", "host.example", "12345", "x9", SECRET, "eyJhbGciOi", "ghp_", "AKIA", "_live_"),
])  # fmt: skip


@given(st.recursive(
    st.lists(PIECES, max_size=8).map("".join) | st.sampled_from([*map(str, HIDDEN.values()), *map(str, NEEDED.values())]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PIECES, inner, max_size=4),
    max_leaves=8,
))  # fmt: skip
@example("cookie://x")
@example({"a": "authorization://user", "b": 'cookie": ://x'})
@example("https://host.example/re\u017fet/12345678")
def test_the_quick_way_finds_what_the_thorough_way_finds(document: Any) -> None:
    """Marks, known texts and checks before a pattern only save time: with and without them a document becomes the same."""
    wanted = _thorough(document)

    assert strip(document) == wanted
    assert strip(document) == wanted, "the second time, when its texts are known"


@pytest.mark.parametrize("word", [
    "reset", "Activate", "confirm", "verify", "invite", "magic", "recover", "passwordless", "unlock", "one-time", "onetime",
    "login-actions",
    "ticket", "set-password", "changePassword", "act\u0131vate",
])  # fmt: skip
def test_a_link_that_opens_an_account_is_cut_whatever_its_word(word: str) -> None:
    """The words that are sought first are those of the pattern, in any case; the dotless i is an i to it."""
    text = f"https://host.example/{word}/12345678"

    assert strip({"note": text}) == _thorough({"note": text}) == {"note": "https://host.example/<secret>"}


def test_texts_that_are_known_are_few() -> None:
    """A stranger's texts take no more memory than some thousand, and what comes after them is stripped as before."""
    for number in range(6000):
        strip({"note": f"note {number}"})

    assert strip({"note": f"token={SECRET}", "kept": "note 1"}) == {"note": "token=<secret>", "kept": "note 1"}
    assert len(strip_module._plain_texts) <= 4096


@given(
    st.text("abcXYZ012", min_size=8, max_size=30),
    st.sampled_from(["password={}", '{{"token": "{}"}}', "api_key: {}", "<pin>{}</pin>"]),
)
def test_a_named_credential_is_found_in_what_was_encoded_again_and_again(secret: str, form: str) -> None:
    """Each program on the way may have encoded what it got."""
    text = form.format(secret)

    for note in (text, quote(text), json.dumps([text]), quote(json.dumps({"kept": quote(text)}))):
        assert secret not in json.dumps(strip({"note": note}))


@pytest.mark.parametrize(
    "text",
    ["a=" * 200_000, "password " + " " * 400_000, "https://h/" + "reset/" * 60_000, "&#61;" * 80_000, "%25" * 130_000, "<a " * 130_000,
     "1 " * 200_000 + "=", '{"' + "\\" * 400_000, "=" + "x" * 400_000, "eyJ" * 130_000, "$2$" * 130_000, "://" * 130_000],
    ids=lambda text: text[:6],
)  # fmt: skip
def test_the_work_grows_no_faster_than_the_text(text: str) -> None:
    """A body is a stranger's: 400 kB of what a pattern begins with take about as many seconds as any other 400 kB."""
    began = time.process_time()

    strip({"note": text})

    assert time.process_time() - began < 5


def test_a_document_in_documents_beyond_all_sense_is_not_kept() -> None:
    """Levels within texts count like others: none makes the reader fail."""
    text = "[" * 150 + '""' + "]" * 150
    for _ in range(3):
        text = json.dumps("[" * 150 + json.dumps(text) + "]" * 150)[1:-1].replace('\\"', '"')
    nested = json.dumps([json.dumps([json.dumps([JSON])])])

    strip({"note": text})
    assert SECRET not in json.dumps(strip({"note": nested}))

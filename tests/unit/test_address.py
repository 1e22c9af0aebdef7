"""What can be an address, and in which form it goes out."""

from __future__ import annotations

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from usher import Reject
from usher.addresses import MailSender, mail_address
from usher.channels.address import email_address, phone_number


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("kim.berg@example.com", "kim.berg@example.com"),
        (" Kim.Berg@Example.COM ", "Kim.Berg@example.com"),
        ("kim+usher@example.com", "kim+usher@example.com"),
        ("kim@bücher.example.com", "kim@xn--bcher-kva.example.com"),
        ("kim@corp.internal", "kim@corp.internal"),
    ],
)
def test_an_email_address_goes_out_normalised(given: str, sent: str) -> None:
    """The domain is folded; the local part is the receiver's and stays."""
    assert email_address(given) == sent


@pytest.mark.parametrize(
    "given",
    ["", "kim", "kim@", "@example.com", "kim berg@example.com", "kim@localhost", "kim@example.com, jo@example.com",
     "Kim <kim@example.com>", "kim@exam\nple.com", "kim@example..com", "kim@mail.invalid", "a" * 250 + "@example.com"],
)  # fmt: skip
def test_what_is_no_email_address_is_rejected_without_being_quoted(given: str) -> None:
    """The reason ends in a header: it names the rule, never the address."""
    with pytest.raises(Reject, match="the email address is not valid") as caught:
        email_address(given)

    assert "kim" not in caught.value.reason.lower()
    assert caught.value.__cause__ is None


def of_the_validator(text: str) -> str | None:
    """What the library says of an address; None: it refuses it."""
    try:
        found = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError:
        return None
    return found.ascii_email or found.normalized


LOCAL_PARTS = st.text("aZ0._+-'é ", min_size=1, max_size=12) | st.sampled_from(
    ["Info", "info", "a" * 64, '"kim"', "k@m"]
)
DOMAINS = st.sampled_from(
    ["example.com", "EXAMPLE.com", "bücher.example.com", "xn--bcher-kva.example.com", "xn--a.com", "[192.0.2.1]", "localhost",
     "a.test", "a..b", " example.com", "example.com.", "-a.com", f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}.com", ""]
)  # fmt: skip


@given(text=st.emails() | st.builds("{}@{}".format, LOCAL_PARTS, DOMAINS) | st.text(max_size=12))
@example(text="postmaster@example.com")
def test_an_address_is_what_the_validator_makes_of_it(text: str) -> None:
    """The quick way for plain addresses gives the same as the library, and refuses the same."""
    try:
        ours = mail_address(text)
    except ValueError:
        ours = None
    assert ours == of_the_validator(text)


INTERNAL = ("firma.local", "test", "intranet", "xn--bcher-kva.local")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("kim@firma.local", "kim@firma.local"),
        ("kim@MX.Firma.Local", "kim@mx.firma.local"),
        ("lee@mail.test", "lee@mail.test"),
        ("sam@intranet", "sam@intranet"),
        ("kim@bücher.local", "kim@xn--bcher-kva.local"),
        ("kim@example.com", "kim@example.com"),
    ],
)
def test_an_address_of_the_own_network_goes_out(given: str, sent: str) -> None:
    """Where its domain was named, or one above it; all others are as ever."""
    assert email_address(given, INTERNAL) == sent


@pytest.mark.parametrize(
    "given",
    ["kim@other.local", "kim@evilfirma.local", "kim@localhost", "kim@", "kim@intranet, a@test", "kim@.test", "@test"],
)
def test_what_was_not_named_is_refused_as_ever(given: str) -> None:
    """A name that only ends alike is another one; and an address has to be one."""
    with pytest.raises(Reject, match="the email address is not valid"):
        email_address(given, INTERNAL)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("+12025550123", "+12025550123"),
        (" +1 (202) 555-0123 ", "+12025550123"),
        ("+447700900123", "+447700900123"),
        ("+49 151 12345678", "+4915112345678"),
        ("00447700900123", "+447700900123"),
        (" 0044 7700 900123", "+447700900123"),
        ("001 202 555 0123", "+12025550123"),
        ("+52 1 55 1234 5678", "+525512345678"),
        ("0052 1 55 1234 5678", "+525512345678"),
        ("+525512345678", "+525512345678"),
    ],
)
def test_a_phone_number_goes_out_as_e164(given: str, sent: str) -> None:
    """However it was written; also one from a range that no table knows yet."""
    assert phone_number(given) == sent


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("2025550199", "no known country code"),
        ("+1202555", "wrong length for country code \\+1"),
        ("+999 202 555 0123", "no known country code"),
        ("call me", "not valid"),
        ("", "not valid"),
        ("+1 202 555 0123 ext. 7", "has an extension"),
        ("+1 900 555 1234", "premium-rate"),
        ("+49 1805 123456", "shared-cost"),
    ],
)
def test_what_no_sms_can_reach_is_rejected_without_being_quoted(given: str, reason: str) -> None:
    """The reason says which rule was broken."""
    with pytest.raises(Reject, match=reason) as caught:
        phone_number(given)

    assert not given or given not in caught.value.reason


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("no-reply@example.com", "no-reply@example.com"),
        ("<no-reply@example.com>", "no-reply@example.com"),
        ("Example <no-reply@Example.com>", '"Example" <no-reply@example.com>'),
        ("Bücher, Inc.  <no-reply@example.com>", '"Bücher, Inc." <no-reply@example.com>'),
        ('"Bücher, Inc." <no-reply@example.com>', '"Bücher, Inc." <no-reply@example.com>'),
        ('"Ann \\"A\\" <Other>" <ann@example.com>', '"Ann \\"A\\" <Other>" <ann@example.com>'),
    ],
)
def test_a_sender_may_have_a_display_name(given: str, sent: str) -> None:
    """The name is quoted, so that a comma in it makes no second address; what is shown can be set again."""
    sender = MailSender.parse(given)

    assert str(sender) == sent
    assert MailSender.parse(sent) == sender


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Example",
        "Example <>",
        "a b c",
        "a@example.org, b@example.org",
        "A <a@example.org>, b@example.org",
        "a@localhost",
    ],
)
def test_a_sender_needs_an_address(given: str) -> None:
    """One, and no more; the error shows how one is written."""
    with pytest.raises(ValueError, match=r"should be an address, as in no-reply@example\.com or"):
        MailSender.parse(given)

"""What counts as an address that can be written to, and the one form in which it goes to a provider.

Nothing here asks the network. A refusal says which rule was broken and never quotes the address: reasons end in headers
and on screens.
"""

from __future__ import annotations

import re
from email.utils import parseaddr

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from phonenumbers import PhoneNumberType

from usher.outcome import Reject

_COSTLY = {
    PhoneNumberType.PREMIUM_RATE: "a premium-rate number",
    PhoneNumberType.SHARED_COST: "a shared-cost number",
}


def email_address(text: str) -> str:
    """The normalised form of a bare mail address: domain in lower case and, where the local part is ASCII, in Punycode.

    Raises:
        Reject: it can't be an address, or its domain is reserved (``.local``, ``.invalid``, …).
    """
    try:
        found = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError as error:
        raise Reject(f"the email address is not valid: {_rule(error)}") from None
    return found.ascii_email or found.normalized


def phone_number(text: str) -> str:
    """The number in E.164, as in ``+12025550123``.

    The length is checked against the country's plan, the assigned ranges are not: the tables of them lag behind the
    operators, and a range opened last month must not lose its messages.

    Raises:
        Reject: it lacks the country code, has an extension, can't be a number of that country, or costs its owner money.
    """
    try:
        number = phonenumbers.parse(text.strip(), None)
    except phonenumbers.NumberParseException as error:
        if error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE:
            raise Reject("the phone number has no known country code: it should begin with + and that") from None
        raise Reject("the phone number is not valid: it is no number") from None
    if number.extension:
        raise Reject("the phone number has an extension, which no SMS can reach")
    if not phonenumbers.is_possible_number(number):
        raise Reject(f"the phone number is not valid: wrong length for country code +{number.country_code}")
    if (costly := _COSTLY.get(phonenumbers.number_type(number))) is not None:
        raise Reject(f"the phone number is {costly}, which gets no SMS")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def mail_from(text: str) -> str:
    """The sender as `Mail.sender` takes it: ``address``, or ``"Display Name" <address>`` with the name as it was written.

    Raises:
        ValueError: it holds no valid address.
    """
    name, address = parseaddr(" ".join(text.split()))
    try:
        checked = email_address(address)
    except Reject as error:
        raise ValueError(
            f"{text!r} is no sender ({error}); write no-reply@example.com or 'Example <no-reply@example.com>'"
        ) from None
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" <{checked}>' if name else checked


def _rule(error: EmailNotValidError) -> str:
    """The rule that was broken, without what follows a colon or parenthesis: there the validator quotes the address."""
    return re.split(r"\s*[:(]", str(error), maxsplit=1)[0].rstrip(".")

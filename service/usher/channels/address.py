"""What counts as an address that can be written to, and the one form in which it goes to a provider.

Nothing here asks the network. A refusal says which rule was broken and never quotes the address: reasons end in headers
and on screens.
"""

from __future__ import annotations

from collections.abc import Collection

import phonenumbers
from phonenumbers import PhoneNumberType

from usher.addresses import mail_address
from usher.outcome import Reject

_COSTLY = {
    PhoneNumberType.PREMIUM_RATE: "a premium-rate number",
    PhoneNumberType.SHARED_COST: "a shared-cost number",
}


def email_address(text: str, internal: Collection[str] = ()) -> str:
    """The normalised form of a bare mail address: see `usher.addresses.mail_address`.

    Raises:
        Reject: it can't be an address, or its domain is reserved (``.local``, ``.invalid``, …) and not *internal*.
    """
    try:
        return mail_address(text, internal)
    except ValueError as rule:
        raise Reject(f"the email address is not valid: {rule}") from None


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

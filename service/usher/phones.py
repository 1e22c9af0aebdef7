"""The one form of a phone number that an SMS can go to. Hides the ways in which people write it, and each country's rules."""

from __future__ import annotations

import re

import phonenumbers
from phonenumbers import PhoneNumberType

_COSTLY = {
    PhoneNumberType.PREMIUM_RATE: "a premium-rate number",
    PhoneNumberType.SHARED_COST: "a shared-cost number",
}
_MEXICO = 52
_OLD_MOBILE = re.compile(r"1([0-9]{10})")
"""Mexico's numbers of mobiles had a 1 before them until 2019, and are still written so; networks do not take it any more."""


def phone_number(text: str) -> str:
    """The number in E.164, as in ``+12025550123``. ``00`` may stand for the ``+``.

    The length is checked against the country's plan, the assigned ranges are not: the tables of them lag behind the
    operators, and a range opened last month must not lose its messages.

    Raises:
        ValueError: it lacks the country code, has an extension, can't be a number of that country, or costs its owner money.
            Says which, and never quotes the number.
    """
    try:
        number = phonenumbers.parse(re.sub(r"^\s*00", "+", text).strip(), None)
    except phonenumbers.NumberParseException as error:
        if error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE:
            raise ValueError("has no known country code: it should begin with + and that") from None
        raise ValueError("is not valid: it is no number") from None
    if number.extension:
        raise ValueError("has an extension, which no SMS can reach")
    if number.country_code == _MEXICO and (mobile := _OLD_MOBILE.fullmatch(str(number.national_number))):
        number.national_number = int(mobile[1])
    if not phonenumbers.is_possible_number(number):
        raise ValueError(f"is not valid: wrong length for country code +{number.country_code}")
    if (costly := _COSTLY.get(phonenumbers.number_type(number))) is not None:
        raise ValueError(f"is {costly}, which gets no SMS")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)

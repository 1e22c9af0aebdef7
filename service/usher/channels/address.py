"""What counts as an address that can be written to, and the one form in which it goes to a provider.

Nothing here asks the network. A refusal says which rule was broken and never quotes the address: reasons end in headers
and on screens.
"""

from __future__ import annotations

from collections.abc import Collection

from usher import phones
from usher.addresses import mail_address
from usher.outcome import Reject


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

    Raises:
        Reject: it can't get an SMS: see `usher.phones.phone_number`.
    """
    try:
        return phones.phone_number(text)
    except ValueError as rule:
        raise Reject(f"the phone number {rule}") from None

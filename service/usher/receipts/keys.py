"""The HMAC that a receipt has in the place of an address. Hides how addresses are written alike, and which key is for what.

Who has the key can find out whether a receipt is about an address that they know. Nobody can read the address out of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from usher.addresses import mail_domain
from usher.phones import phone_number
from usher.redact import holds_person

KEY_BYTES: Final = 32
_MOST: Final = 320
"""Characters. No address is longer, and no id that is kept."""
_KEPT: Final = "hmac:"
_KNOWN: Final = 4_096


@dataclass(frozen=True, slots=True)
class AddressKey:
    """One key. *name* is a short hash of it, by which a receipt says with which key it was written."""

    secret: bytes = field(repr=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        name = hashlib.sha256(b"usher receipts key name\0" + self.secret).hexdigest()[:8]
        object.__setattr__(self, "name", name)

    def address_hmac(self, address: str, channel: str) -> bytes:
        """Return the HMAC-SHA256 of an address, in the one form that `normalized` gives. *channel* is ``email`` or ``sms``."""
        return hmac.digest(self.secret, normalized(address, channel).encode("utf-8", "replace"), "sha256")

    def kept(self, text: str) -> str:
        """Return *text*, an id or a user name, as a receipt keeps it: its HMAC where it is an address or a number."""
        if not holds_person(text):
            return text[:_MOST]
        return _KEPT + base64.urlsafe_b64encode(self.address_hmac(text, channel_of(text))).decode().rstrip("=")


class AddressKeys:
    """The keys of a group: the first one writes, all of them read."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """*secrets* are one or more; the order is that of the setting.

        Raises:
            ValueError: there is none.
        """
        self._keys = tuple(AddressKey(secret) for secret in dict.fromkeys(secrets))
        if not self._keys:
            raise ValueError("receipts need a key for the HMAC of addresses")
        self.name = self._keys[0].name
        """What a receipt says of its key."""
        self._kept = lru_cache(_KNOWN)(self._keys[0].kept)

    def __iter__(self) -> Iterator[AddressKey]:
        return iter(self._keys)

    def address_hmac(self, address: str, channel: str) -> bytes:
        """As `AddressKey.address_hmac`, with the key that writes."""
        return self._keys[0].address_hmac(address, channel)

    def kept(self, text: str) -> str:
        """As `AddressKey.kept`, with the key that writes."""
        return self._kept(text) if len(text) <= _MOST else self._keys[0].kept(text)

    def hmacs(self, address: str, channel: str) -> Mapping[str, bytes]:
        """Return what receipts may have of *address*: the HMAC with each key, by the key's name."""
        return {key.name: key.address_hmac(address, channel) for key in self._keys}

    def all_kept(self, text: str) -> frozenset[str]:
        """Return how receipts may keep *text*, an id or a user name: as it is, or as its HMAC with any of the keys."""
        return frozenset(key.kept(text) for key in self._keys)


def channel_of(address: str) -> str:
    """Return the channel that *address* is of, by its looks: ``email`` or ``sms``."""
    return "email" if "@" in address else "sms"


def normalized(address: str, channel: str) -> str:
    """Return the one form of an address, however it is written: the same person is the same HMAC. Never fails.

    A mail address has its domain in lower case and Punycode, and is case-folded as a whole; a number is in E.164.
    What is neither is only trimmed and case-folded.
    """
    text = address[:_MOST].strip()
    if channel == "email":
        local, at, domain = text.rpartition("@")
        return _folded(f"{local}{at}{_domain(domain)}")
    try:
        return phone_number(text)
    except ValueError:
        return _folded("".join(text.split()))


def _folded(text: str) -> str:
    """Return the one text of those that differ in case only, or in how their accents are written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


@lru_cache(1_024)
def _domain(text: str) -> str:
    try:
        return mail_domain(text)
    except ValueError:
        return text

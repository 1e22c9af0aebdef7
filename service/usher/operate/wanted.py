"""Which events are asked for: by id, or by whom they are about. Says of bytes whether they may hold one, before anything is parsed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from usher.delivery import opaque
from usher.event import Event, EventUid
from usher.receipts.keys import channel_of, normalized

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:@ +-]+")
"""Texts of these have two spellings in JSON: themselves, and ones with ``\\u`` in them."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LEAST_DIGITS: Final = 6
_BACKSLASH: Final = ord("\\")
_BETWEEN_DIGITS: Final = b" -().\t/"
"""What people write between the digits of a number."""

MayBe = Callable[[bytes], bool]


def is_called(uid: EventUid, event_id: str) -> bool:
    """Return whether *event_id*, as its source or as Usher writes it, is the id of that event."""
    return uid.id in {event_id, opaque(event_id)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The events that are asked for: those with one of *ids*, and those about *user* (an id, user name or address) or *address*.

    *source* and *tenant* leave out those of others; None: any.
    """

    ids: frozenset[str] = frozenset()
    user: str | None = None
    address: str | None = None
    source: str | None = None
    tenant: str | None = None
    _keys: frozenset[str] = field(init=False)
    _addresses: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keys", frozenset({*self.ids, *map(opaque, self.ids)}))
        given = [text for text in (self.user, self.address) if text]
        object.__setattr__(self, "_addresses", frozenset(normalized(text, channel_of(text)) for text in given))

    def takes(self, uid: EventUid) -> bool:
        """Return whether an event of this source and tenant may be meant at all."""
        return self.source in {None, uid.source} and self.tenant in {None, uid.tenant}

    def is_called(self, uid: EventUid) -> bool:
        """Return whether the event is asked for by its id."""
        return uid.id in self._keys and self.takes(uid)

    def is_(self, event: Event) -> bool:
        """Return whether the event is asked for."""
        return self.is_called(event.uid) or (self.takes(event.uid) and self._is_about(event))

    def _is_about(self, event: Event) -> bool:
        user = event.user
        if self.user is not None:
            if self.user in {user.id, event.context.user_id}:
                return True
            if user.username is not None and user.username.casefold() == self.user.casefold():
                return True
        return bool(self._addresses) and (
            (user.email is not None and normalized(user.email, "email") in self._addresses)
            or (user.phone is not None and normalized(user.phone, "sms") in self._addresses)
        )

    def may_be(self) -> MayBe:
        """Make a function that says no only to bytes of a stored event that is not asked for.

        It is for events in the canonical form, and in Authgear's: what a source reads in another form may have an id that no bytes have.
        """
        tests = [*self._by_id(), *self._by_person()]
        if any(test is _always for test in tests):
            return _always

        return _any(tests)

    def _by_id(self) -> Iterable[MayBe]:
        if any(_DIGEST.fullmatch(id_) for id_ in self.ids):  # it may stand for an address, or for bytes without an id
            return [_always]
        return [_holds(id_) for id_ in self.ids]

    def _by_person(self) -> Iterable[MayBe]:
        for text in filter(None, (self.user, self.address)):
            local, at, _ = text.rpartition("@")
            yield _holds_folded(local if at else text)
            digits = re.sub(r"\D", "", text)
            if not at and len(digits) >= _LEAST_DIGITS and not re.search(r"[^\d\s+().\-/]", text):
                yield _holds_number(digits[-_LEAST_DIGITS:])


def _holds(text: str) -> MayBe:
    literal, plain = text.encode("utf-8", "surrogatepass"), _PLAIN.fullmatch(text) is not None

    def test(value: bytes) -> bool:
        return value.rfind(literal) >= 0 or (_BACKSLASH in value and (not plain or b"\\u" in value))

    return test


def _holds_folded(text: str) -> MayBe:
    if not text.isascii():
        return _always
    folded, plain = text.lower().encode(), _PLAIN.fullmatch(text) is not None

    def test(value: bytes) -> bool:
        return value.lower().rfind(folded) >= 0 or (_BACKSLASH in value and (not plain or b"\\u" in value))

    return test


def _holds_number(digits: str) -> MayBe:
    literal = digits.encode()
    return lambda value: literal in value.translate(None, _BETWEEN_DIGITS)


def _encoded(value: bytes) -> bool:
    """Return whether a CloudEvent's content may be encoded, so that nothing can be seen in it."""
    return value.rfind(b"base64") >= 0  # rfind, not in: it is twice as fast


def _any(tests: Sequence[MayBe]) -> MayBe:
    def may_be_wanted(value: bytes) -> bool:
        for test in tests:  # a generator would cost more than the search
            if test(value):
                return True
        return _encoded(value)

    return may_be_wanted


def _always(_value: bytes) -> bool:
    return True

"""What the receipts of one delivery say together: equal ones are one, states only climb, and a repeat stays visible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from usher.outcome import AccountDisabled, NoAddress
from usher.receipts.receipt import RANKS, DeliveryId, Receipt, ReceiptId, State

NO_ADDRESS: Final = NoAddress.code
DISABLED: Final = AccountDisabled.code
"""The reasons of a `skipped` that is nobody's intention: the person was to get a message."""

TOLD: Final[frozenset[State]] = frozenset({"sent", "deferred", "delivered", "complained"})
"""The states in which a message went out, as far as is known. Who complains of one has received it."""
_FAILED: Final[frozenset[State]] = frozenset(
    {"dead", "expired", "unknown", "dropped", "suppressed", "bounced", "undelivered"}
)
_FILLED: Final = (
    "event_id", "type", "source", "tenant", "user_id", "username", "stored_at", "reason", "channel", "provider", "template",
    "language", "address", "key", "attempts", "began",
)  # fmt: skip
"""What a later word about a message may lack, and the earlier one has."""


def failed(receipt: Receipt) -> bool:
    """Return whether this receipt says that somebody who was to get a message got none."""
    if not receipt.sends:
        return False
    return receipt.state in _FAILED or (receipt.state == "skipped" and receipt.reason in (NO_ADDRESS, DISABLED))


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One entry of a history. *repeat*: the message went out before, under another id of the provider."""

    receipt: Receipt
    repeat: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of one delivery. *receipt* is the one that counts, *history* has all of them, the oldest first."""

    receipt: Receipt
    history: tuple[HistoryEntry, ...]

    @property
    def told(self) -> bool:
        """Whether any of its messages went out, as far as is known."""
        return any(entry.receipt.state in TOLD for entry in self.history)

    @property
    def failed(self) -> bool:
        """Whether somebody who was to get a message got none."""
        return not self.told and failed(self.receipt)


def ended(receipts: Iterable[Receipt]) -> list[Ended]:
    """Return what became of each delivery that *receipts* are about, in their order."""
    by_delivery: dict[DeliveryId, dict[ReceiptId, Receipt]] = {}
    for receipt in receipts:
        known = by_delivery.setdefault(receipt.delivery, {})
        same = known.get(receipt.identity)
        known[receipt.identity] = receipt if same is None else _merged(same, receipt)
    return [_ended(sorted(known.values(), key=lambda receipt: receipt.at)) for known in by_delivery.values()]


def _ended(receipts: list[Receipt]) -> Ended:
    return Ended(max(receipts, key=_height), tuple(_history(receipts)))


def _history(receipts: Iterable[Receipt]) -> Iterator[HistoryEntry]:
    message = ""
    for receipt in receipts:
        yield HistoryEntry(receipt, bool(message and receipt.provider_id))
        message = message or receipt.provider_id


def _merged(one: Receipt, other: Receipt) -> Receipt:
    """Return one of two receipts of one identity: the state that climbed higher, with what only the other one has."""
    lower, higher = sorted((one, other), key=_height)
    missing = {name: getattr(lower, name) for name in _FILLED if not getattr(higher, name) and getattr(lower, name)}
    return replace(higher, **missing) if missing else higher


def _height(receipt: Receipt) -> tuple[int, int]:
    return RANKS[receipt.state], receipt.at

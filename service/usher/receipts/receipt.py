"""The Receipt: what became of one delivery, or a later word about it. The states, and which of two states counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple, get_args

from msgspec import Meta, Struct

State = Literal[
    "done", "skipped", "suppressed", "dead", "expired", "unknown", "dropped", "replayed", "sent", "deferred", "delivered",
    "undelivered", "bounced", "complained",
]  # fmt: skip
"""How a delivery ended, or what was said of it later."""

RANKS: Final[Mapping[State, int]] = {
    "done": 1,
    "skipped": 1,
    "suppressed": 1,
    "dead": 2,
    "expired": 2,
    "unknown": 2,
    "dropped": 3,
    "replayed": 3,
    "sent": 4,
    "deferred": 5,
    "delivered": 6,
    "undelivered": 7,
    "bounced": 7,
    "complained": 8,
}
"""States only climb: of two words about one delivery the one of the higher rank counts; of two of one rank, the later."""

ENDINGS: Final = frozenset(get_args(State)) - {"deferred", "delivered", "undelivered", "bounced", "complained"}
"""The states with which Usher ends a delivery. The others are the words of providers, and come later."""

_Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""What SQLite and Kafka can hold."""
_Hash = Annotated[bytes, Meta(max_length=64)]


class DeliveryId(NamedTuple):
    """The delivery that a receipt is about: an offset of one topic, for one handler. An offset alone counts in one topic only."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    handler: str


class ReceiptId(NamedTuple):
    """Receipts with the same one are about the same ending: readers keep one of them."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    handler: str
    replay: str
    provider_id: str


class Receipt(Struct, frozen=True, array_like=True, kw_only=True):
    """What became of one delivery: how it ended, or a later word about it. Times are in Unix milliseconds; 0 is not known.

    *topic* to *offset* name the source record, *stored_at* is its time. *replay* is the id of the replay, empty for none.
    *address* is the HMAC of the address that the message went to, and *key* names the key of all HMACs in the receipt;
    *event_id*, *user_id* and *username* are as `usher.receipts.keys.AddressKeys.kept` gives them. *attempts* counts those that
    were made, *began* is the first one's time, *at* when it ended. Not *sends*: the handler says that it never sends.

    The order of the fields is the wire's order: a new one comes last, and has a default.
    """

    topic: str
    topic_id: str = ""
    partition: _Whole
    offset: _Whole
    handler: str
    replay: str = ""
    event_id: str = ""
    type: str = ""
    source: str = ""
    tenant: str = ""
    user_id: str = ""
    username: str = ""
    stored_at: _Whole = 0
    state: State
    reason: str = ""
    channel: str = ""
    provider: str = ""
    provider_id: str = ""
    template: str = ""
    language: str = ""
    address: _Hash = b""
    key: str = ""
    attempts: _Whole = 0
    began: _Whole = 0
    at: _Whole = 0
    sends: bool = True

    @property
    def delivery(self) -> DeliveryId:
        return DeliveryId(self.topic, self.topic_id, self.partition, self.offset, self.handler)

    @property
    def identity(self) -> ReceiptId:
        """What readers merge equal ones by. The group is the one in whose topic it lies."""
        return ReceiptId(*self.delivery, self.replay, self.provider_id)

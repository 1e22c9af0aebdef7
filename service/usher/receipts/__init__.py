"""A Receipt says what became of one delivery, without the address that it was about.

`usher.receipts.keys` makes the HMAC that stands in the place of an address.
"""

from usher.receipts.receipt import ENDINGS, RANKS, Receipt, State, rank
from usher.receipts.wire import MOST_BYTES, UnreadableReceipts, pack, unpack

__all__ = ["ENDINGS", "MOST_BYTES", "RANKS", "Receipt", "State", "UnreadableReceipts", "pack", "rank", "unpack"]

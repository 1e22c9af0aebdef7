"""A Receipt says what became of one delivery, without the address that it was about.

`usher.receipts.keys` makes the HMAC that stands in the place of an address.
"""

from usher.receipts.ended import DISABLED, NO_ADDRESS, TOLD, Ended, HistoryEntry, ended, failed
from usher.receipts.receipt import ENDINGS, RANKS, Receipt, State
from usher.receipts.wire import MOST_BYTES, UnreadableReceipts, pack, unpack

__all__ = [
    "DISABLED", "ENDINGS", "MOST_BYTES", "NO_ADDRESS", "RANKS", "TOLD", "Ended", "HistoryEntry", "Receipt", "State", "UnreadableReceipts",
    "ended", "failed", "pack", "unpack",
]  # fmt: skip

"""Receipts for tests: made of a few words, and filed as a worker files them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from usher.eventlog.port import Claim, EventLog
from usher.receipts import Receipt, pack

AT = 1_750_000_000_000
"""When receipts end that say nothing else, in Unix milliseconds."""


def receipt(event_id: str, state: str = "sent", /, handler: str = "welcome_email", **fields: Any) -> Receipt:
    """A receipt of the source record at offset 0, unless *fields* say something else."""
    sent = {
        "channel": "email",
        "provider": "outbox",
        "provider_id": f"{event_id}.eml",
        "template": "welcome_email",
        "language": "en",
    }
    given = {
        "topic": "identity.events", "partition": 0, "offset": 0, "type": "user.created", "source": "authgear", "user_id": "u-1",
        "stored_at": AT - 1000, "attempts": 1, "began": AT - 500, "at": AT, **(sent if state == "sent" else {}), **fields,
    }  # fmt: skip
    return Receipt(event_id=event_id, handler=handler, state=state, **given)  # type: ignore[arg-type]


async def file(log: EventLog, claim: Claim, receipts: Sequence[Receipt]) -> None:
    """File receipts as a worker does."""
    await log.file(claim, pack(receipts))

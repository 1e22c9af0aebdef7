"""What a worker holds in memory, and how much that may be: the one place of the simulation that looks inside a worker."""

from __future__ import annotations

from collections.abc import Iterator

from usher.engine.limits import Limits
from usher.engine.worker import Worker


def too_much(worker: Worker, limits: Limits, handlers: int, replays: int) -> Iterator[str]:
    """A sentence for each bound that is exceeded, whatever there is to read; *replays* have been asked for so far.

    Fresh records stop at the limit, but a read is taken in whole, and retries that were woken before it find their room.
    """
    most = 2 * limits.records + (limits.read + replays) * handlers
    held = worker.driver.records
    if held > most:
        yield f"holds {held} deliveries, and {most} is the most"
    for claim, state in worker.claims.states.items():
        if len(state.ledger) > limits.per_claim:
            yield f"has {len(state.ledger)} offsets of {claim.partition} unsettled, and {limits.per_claim} is the most"

"""What a worker holds in memory, how much that may be, and what it counts: the one place of the simulation that looks inside a worker."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fakes.memory_broker import MemoryBroker

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


def miscounted(worker: Worker, broker: MemoryBroker) -> Iterator[str]:
    """A sentence for each claim whose records are counted wrongly: each one that was read counts once, also where it was left out.

    The ratio of undecodable records, for which a partition rests, is taken over those numbers. Offsets have no gaps here.
    """
    for claim, state in worker.claims.states.items():
        if claim.topic_id != broker.topic_id(claim.topic):
            continue
        if state.records != state.position - claim.start:
            yield f"has read {claim.partition} from {claim.start} to {state.position}, and counts {state.records} records"
        records = broker.partition(*claim.topic_partition)
        for number in state.undecodable:
            record = records.since(claim.start + number - 1, 1)[0]
            if record.value is None or record.value.endswith(b"}"):
                yield f"takes record {number} of {claim.partition} for undecodable, which it is not"

"""Isolation: whose turn it is when the delivery that began a round goes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from usher.engine.attempt import Attempts
from usher.engine.claim_state import ClaimState
from usher.engine.commits import Commits
from usher.engine.dedupe import Recent
from usher.engine.isolation import Isolation
from usher.engine.lanes import InFlight
from usher.engine.ledger import group_of
from usher.eventlog.port import Claim


class _Commits:
    """Takes one commit for each *turn*."""

    def __init__(self) -> None:
        self.asked, self.turn = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def commit(self, _states: object) -> bool:
        self.asked.release()
        await self.turn.acquire()
        return True


async def test_a_round_that_is_given_up_before_it_begins_holds_up_nobody() -> None:
    """Those that were chosen beside the one that goes run in a later round, and nothing waits for ever."""
    made, commits = list[str](), _Commits()

    async def make(in_flight: InFlight) -> tuple[str, Any]:
        made.append(in_flight.delivery.key)
        return "done", in_flight.delivery

    isolation = Isolation(cast("Attempts", SimpleNamespace(make=make)), cast("Commits", commits))
    keys = [key for key in map(str, range(5_000)) if group_of(key) == group_of("0")][:40]
    state = ClaimState(Claim("events", 0, 0, ""), b"w", ["h"], Recent(1, lambda: 0.0), lambda _: None)
    state.open = True
    parked = [InFlight(cast("Any", SimpleNamespace(key=key, offset=0)), parked=True) for key in keys]
    tasks = [asyncio.create_task(isolation.attempt(state, in_flight)) for in_flight in parked]

    await commits.asked.acquire()  # the first one runs alone: the others were not there when it came
    commits.turn.release()
    await commits.asked.acquire()
    for _ in range(3):
        await asyncio.sleep(0)
    tasks[1].cancel()
    commits.turn = asyncio.Semaphore(1000)
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks, return_exceptions=True)

    assert sorted(made) == sorted(set(keys) - {keys[1]})

"""`make chaos`, the short form: whatever happens to workers, broker and provider, the promises hold."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from rich.console import Console
from tests.chaos.report import show
from tests.chaos.run import chaos
from tests.kafka import Broker


@pytest.mark.timeout(600)
async def test_the_promises_hold_whatever_happens(own_kafka: Broker, tmp_path: Path) -> None:
    """Kills, freezes, restarts, a broker's end, garbage: nothing lost, in order, never two at once, repeats explained.

    Each run draws a new plan; `SEED=… make chaos` repeats it, and the logs are in the folder that the failure names.
    """
    seed = int(os.environ.get("SEED") or random.randrange(10**6))
    began = time.monotonic()
    findings, run = await chaos(
        own_kafka, seed, 40, tmp_path, lambda what: print(f"{time.monotonic() - began:.1f} s {what}")
    )
    show(Console(width=140, highlight=False), seed, findings, run)
    assert findings.holds, f"SEED={seed}, logs in {tmp_path}: {findings.broken}"
    assert findings.delivered > 500  # something was at stake

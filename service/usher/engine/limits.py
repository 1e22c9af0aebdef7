"""The limits of a worker: what may be in memory, and how long things may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be in memory, and how long things may take (seconds).

    Intake stops at *fresh* of the process's limits, so that due retries always find room: else a full house of records
    that wait and retries that wait would block each other. A claim is not read while *intake_stops* of its offsets are
    unsettled, nor so far that there could be more than *per_claim*, or more than its Mark can hold (`Ledger.room`).
    So many *replays* run at once. Once all claims together have *unfiled* receipts, those that have their share are not read.
    """

    records: int = 10_000
    size: int = 64 * 1024 * 1024
    fresh: float = 0.9
    per_claim: int = 2_400
    intake_stops: int = 1_800
    per_lane: int = 100
    replays: int = 100
    unfiled: int = 20_000
    read: int = 2_000
    commit_every: float = 0.5
    drain: float = 20.0
    handler_gone_after: float = 900.0
    calm_after: float = 60.0
    undecodable_ratio: float = 0.5
    undecodable_at_least: int = 20
    undecodable_rest: float = 60.0
    dedupe_window: float = 600.0
    dedupe_records: int = 50_000

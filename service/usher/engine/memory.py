"""What is in memory: how many deliveries and bytes of all claims, against the limits of the process."""

from __future__ import annotations

from usher.engine.claim_state import ClaimState
from usher.engine.lanes import InFlight
from usher.engine.limits import Limits


class Memory:
    """Counts the deliveries in flight, each once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.records = 0
        self.size = 0

    @property
    def full(self) -> bool:
        """Whether no fresh records should be read for now."""
        limits = self._limits
        return self.records >= limits.records * limits.fresh or self.size >= limits.size * limits.fresh

    @property
    def space(self) -> float:
        """How many bytes fresh records may still take."""
        return self._limits.size * self._limits.fresh - self.size

    def add(self, state: ClaimState, in_flight: InFlight) -> None:
        """Count a delivery that comes into flight."""
        if state.in_flight.setdefault(in_flight.delivery.key, in_flight) is in_flight and not in_flight.counted:
            in_flight.counted = True
            self.records += 1
            self.size += in_flight.delivery.size

    def remove(self, state: ClaimState, in_flight: InFlight) -> None:
        """Count it no more: it has ended, or was handed over."""
        if in_flight.counted:
            in_flight.counted = False
            self.records -= 1
            self.size -= in_flight.delivery.size
        if state.in_flight.get(in_flight.delivery.key) is in_flight:
            del state.in_flight[in_flight.delivery.key]

"""The errors of an event log: what it raises on purpose."""

from __future__ import annotations

from collections.abc import Collection

from usher.redact import Ours


class LogError(Exception):
    """The base of the errors of an event log. Their texts are ours: they name servers, topics and offsets, and never a person."""

    def __str__(self) -> str:
        return Ours(super().__str__())


class LogUnavailable(LogError):
    """The event log can't be reached, or refuses for now. Wait and try again: nothing is lost."""


class LogMissing(LogUnavailable):
    """There is no event log where the settings say, and the command that looked does not create one."""


class ClaimLost(LogError):
    """This worker has lost the claim, or the write was for an older claim of the partition. Forget the claim.

    *claims* are those that are lost; where it names none, all that the call was about.
    """

    def __init__(self, text: str, claims: Collection[object] = ()) -> None:
        super().__init__(text)
        self.claims = claims


class TooLarge(LogError):
    """The record is larger than the event log takes. It will never fit: write a stub that says where the original is."""


class LeaseLost(LogError):
    """Another worker has the lease, or may have it. Leave its block; the checkpoints that were kept stay."""


class LogMisconfigured(LogError):
    """A topic is missing, has a wrong number of partitions, or may not be written. Says what, and the command to run."""

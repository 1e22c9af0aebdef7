"""Providers that keep messages instead of sending them, and that fail on request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from usher.channels import Mail, Progress, SmsMessage

AnyMessage = TypeVar("AnyMessage", Mail, SmsMessage)


class _RecordingProvider(Generic[AnyMessage]):
    name = "recording"

    def __init__(self, *endings: BaseException | None) -> None:
        self.sent: list[AnyMessage] = []
        self.asked: list[AnyMessage] = []
        self._endings: Iterable[BaseException | None] = iter(endings)

    async def send(self, message: AnyMessage, progress: Progress, /) -> None:
        """Record *message*, or raise the next ending."""
        self.asked.append(message)
        progress.state = "left"
        if (ending := next(iter(self._endings), None)) is not None:
            progress.state = "back"
            raise ending
        self.sent.append(message)
        progress.state = "sent"


class RecordingEmail(_RecordingProvider[Mail]):
    """A provider of mail. *sent* has the messages that it accepted, *asked* all that it was given.

    It raises the *endings* in turn; None stands for success. After the last one it accepts everything::

        RecordingEmail(Retry("busy", after="30s"), None, Reject("no such mailbox"))
    """


class RecordingSms(_RecordingProvider[SmsMessage]):
    """A provider of SMS; otherwise like `RecordingEmail`."""

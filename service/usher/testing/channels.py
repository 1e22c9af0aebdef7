"""Providers that keep what they are given instead of sending it, and that fail on request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from usher.channels import Mail, Progress, SmsMessage

Message = TypeVar("Message", Mail, SmsMessage)


class _Recording(Generic[Message]):
    name = "recording"

    def __init__(self, *endings: BaseException | None) -> None:
        self.sent: list[Message] = []
        self.asked: list[Message] = []
        self._endings: Iterable[BaseException | None] = iter(endings)

    async def send(self, message: Message, progress: Progress, /) -> None:
        """Record *message*, or raise the ending whose turn it is."""
        self.asked.append(message)
        progress.state = "left"
        if (ending := next(iter(self._endings), None)) is not None:
            progress.state = "back"
            raise ending
        self.sent.append(message)
        progress.state = "sent"


class RecordingEmail(_Recording[Mail]):
    """A provider of mail. *sent* is what it accepted, *asked* all it was given.

    It raises the *endings* in turn, None standing for success; after the last one it accepts everything::

        RecordingEmail(Retry("busy", after="30s"), None, Reject("no such mailbox"))
    """


class RecordingSms(_Recording[SmsMessage]):
    """A provider of SMS, otherwise as `RecordingEmail`."""

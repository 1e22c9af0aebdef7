"""The ports of the channels: what a provider of mail or SMS is, and what it is given.

A provider is interchangeable: it takes one finished message, returns once the provider has accepted it, and otherwise
raises what became of it. How it speaks to its provider is its own affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from usher.addresses import MailSender
from usher.context import SendState

PROVIDER_ID = 200
"""Characters of a provider's id at most: the rest of what it said is not kept."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail for one recipient. *to* is a bare, checked address.

    *idempotency_key* is the same for every attempt of one delivery. *headers* are further ones; those that `mime.build`
    sets itself may not be among them.
    """

    to: str
    sender: MailSender
    subject: str
    text: str
    html: str | None
    idempotency_key: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SmsMessage:
    """One SMS. *to* is E.164, as in ``+447700900123``. After *expires_at* (Unix seconds) it is of no use; None: it always is."""

    to: str
    body: str
    idempotency_key: str
    expires_at: float | None = None


class Progress(Protocol):
    """How far a message has come; `usher.context.Outgoing` is one.

    A provider moves *state* from ``new`` to ``left`` before the first byte that could make the message go out may reach
    the provider, to ``sent`` when it was accepted, to ``back`` when the provider said that it did not take it. A send that
    is cancelled leaves it where it was. *provider_id* is by what the provider knows the message, once it has accepted it: what it
    said is kept on one line, and no longer than `PROVIDER_ID`.
    """

    state: SendState
    provider_id: str


class ProviderRefused(Exception):
    """The provider refused us, not the message: credentials, quota, suspension. No message gets through until an operator acts.

    *reason* is scrubbed. *doubtful*: it may be about this message, and is if others get through meanwhile.
    """

    def __init__(self, reason: str, *, doubtful: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.doubtful = doubtful


class Email(Protocol):
    """A provider of mail. *name* is the metric's label, and what `USHER_EMAIL` says."""

    name: str

    async def send(self, mail: Mail, progress: Progress, /) -> None:
        """Returns when the provider has accepted it.

        Raises:
            usher.outcome.Retry, usher.outcome.Reject, usher.outcome.Unknown, ProviderRefused
        """


class MailProvider(Email, Protocol):
    """A provider itself, with nothing before it."""

    def prepare(self, mail: Mail, /) -> bytes:
        """What goes to the provider for *mail*.

        Raises:
            usher.outcome.Reject: it can't be one mail to one recipient.
        """


class Sms(Protocol):
    """A provider of SMS. *name* is the metric's label, and what `USHER_SMS` says."""

    name: str

    async def send(self, text: SmsMessage, progress: Progress, /) -> None:
        """Returns when the provider has accepted it.

        Raises:
            usher.outcome.Retry, usher.outcome.Reject, usher.outcome.Unknown, ProviderRefused
        """

"""The message sender: from a handler's ``ctx.email(...)`` to a rendered, addressed message that a provider has accepted.

The only place where a template, an address and a provider meet. Its log lines hold no personal data.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from usher.addresses import MailSender
from usher.channels import Email, Mail, Sms, SmsMessage
from usher.channels.address import email_address, phone_number
from usher.channels.rate_limit import RateLimit
from usher.channels.templates import Templates
from usher.context import Outgoing
from usher.event import Event, User
from usher.outcome import NoAddress

_Turns = contextlib.AbstractAsyncContextManager[Any]
_NO_LIMIT: _Turns = contextlib.nullcontext()


class MessageSender:
    """A `usher.context.Sender`.

    Args:
        templates: what messages say.
        sender: the From of mails.
        email: the provider of mail, usually behind a `CircuitBreaker`.
        sms: the provider of SMS, likewise.
        internal_domains: the mail domains of the own network.
        at_once: how many messages are sent at once; None: no limit. Others wait for their turn, and their handlers'
            timeouts with them: a thousand due at once must not time out in a queue of our own.
        mails_at_once: how many of them may be mails; None: all.
        rate_limit_of: finds the rate limit of an event's tenant; None: it has none.
    """

    def __init__(
        self,
        templates: Templates,
        *,
        sender: MailSender,
        email: Email,
        sms: Sms,
        internal_domains: Collection[str] = (),
        at_once: int | None = None,
        mails_at_once: int | None = None,
        rate_limit_of: Callable[[Event], RateLimit | None] = lambda _event: None,
    ) -> None:
        self._turns, self._mail_turns = _turns(at_once), _turns(mails_at_once)
        self._templates = templates
        self._sender = sender
        self._email = email
        self._sms = sms
        self._internal_domains = internal_domains
        self._rate_limit_of = rate_limit_of

    async def email(self, outgoing: Outgoing) -> None:
        """Render and send the mail.

        Raises:
            NoAddress: the user has no email address.
            Reject: the address can't be one, or the template can't be rendered: no retry can help.
            Hold: the tenant has had its messages of this minute.
            Retry, Reject, Unknown, Hold: as the provider and its circuit breaker say.
        """
        to = email_address(_address(outgoing.to, "email", "no email address"), self._internal_domains)
        mail = self._templates.mail(outgoing.template, outgoing.event, email=to, variables=outgoing.variables)
        message = Mail(
            to=to,
            sender=self._sender,
            subject=mail.subject,
            text=mail.text,
            html=mail.html,
            idempotency_key=outgoing.idempotency_key,
        )
        outgoing.provider, outgoing.language, outgoing.address = self._email.name, mail.language, to
        async with self._turn(outgoing, self._mail_turns):
            await self._email.send(message, outgoing)
        _sent(outgoing)

    async def sms(self, outgoing: Outgoing) -> None:
        """Render and send the SMS.

        Raises:
            NoAddress: the user has no phone number.
            Reject: the number can't be one, or the template can't be rendered: no retry can help.
            Hold: the tenant has had its messages of this minute.
            Retry, Reject, Unknown, Hold: as the provider and its circuit breaker say.
        """
        to = phone_number(_address(outgoing.to, "phone", "no phone number"))
        sms = self._templates.sms(outgoing.template, outgoing.event, phone=to, variables=outgoing.variables)
        outgoing.provider, outgoing.language, outgoing.address = self._sms.name, sms.language, to
        async with self._turn(outgoing, _NO_LIMIT):
            await self._sms.send(SmsMessage(to, sms.text, outgoing.idempotency_key, outgoing.expires_at), outgoing)
        _sent(outgoing, segments=sms.length.segments)

    @contextlib.asynccontextmanager
    async def _turn(self, outgoing: Outgoing, of_its_kind: _Turns) -> AsyncIterator[None]:
        clock = outgoing.clock
        if clock is not None:
            clock.stop()
        async with of_its_kind, self._turns:
            if clock is not None:
                clock.start()
            if (rate_limit := self._rate_limit_of(outgoing.event)) is not None:
                rate_limit.take(outgoing.idempotency_key)
            yield


def _turns(at_once: int | None) -> _Turns:
    return _NO_LIMIT if at_once is None else asyncio.Semaphore(at_once)


def _address(to: User | str | None, field: str, otherwise: str) -> str:
    address = getattr(to, field) if isinstance(to, User) else to
    if not address or not address.strip():
        raise NoAddress(otherwise)
    return str(address)


def _sent(outgoing: Outgoing, **more: int) -> None:
    outgoing.state = "sent"
    outgoing.logger.info(
        "message sent",
        channel=outgoing.channel,
        provider=outgoing.provider,
        provider_id=outgoing.provider_id,
        template=outgoing.template,
        language=outgoing.language,
        **more,
    )

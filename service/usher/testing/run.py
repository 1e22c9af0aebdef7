"""Make one attempt of one handler, with the engine's own code, the real sender and templates, and without an event log."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from pydantic import BaseModel
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from usher.addresses import MailSender
from usher.channels import Email, Mail, Sms, SmsMessage
from usher.channels.sender import MessageSender
from usher.channels.templates import Brand, Templates, template_folders
from usher.context import Context
from usher.delivery import Delivery, Origin, lane_of
from usher.engine.attempt import Attempts
from usher.engine.lanes import InFlight
from usher.event import Event
from usher.handler import Handler, Router
from usher.metrics import Metrics
from usher.outcome import Dead, Done, Park, RetryPolicy, Verdict
from usher.redact import know
from usher.settings.secret_values import secret_values
from usher.system import IdentitySystem
from usher.systems.source import event_key
from usher.testing.channels import RecordingEmail, RecordingSms
from usher.testing.clock import Clock

SENDER = MailSender("no-reply@example.com", "Example")
BRAND = Brand("Example", "https://login.example.com", "https://login.example.com")


@dataclass(frozen=True, slots=True)
class Result:
    """How the attempt ended.

    *outcome* is the word of the metric: ``done``, ``skipped``, ``retry``, ``failed``, ``rejected``, ``unknown``, ``held``,
    ``expired``; or ``filtered`` if the handler is not for this event and did not run. *reason* says why, scrubbed, as in
    log lines. *emails* and *texts* are what was sent. *dead* means no further attempt; *retry_in* is the wait before the
    next one, in seconds and without jitter. *error* is what the handler raised, *logs* are the lines that were logged.
    """

    outcome: str
    reason: str = ""
    emails: list[Mail] = field(default_factory=list)
    texts: list[SmsMessage] = field(default_factory=list)
    dead: bool = False
    retry_in: float | None = None
    error: Exception | None = None
    logs: list[Mapping[str, Any]] = field(default_factory=list)


async def run(
    handler: Handler,
    event: Event,
    *,
    settings: BaseModel | Mapping[str, Any] | None = None,
    attempt: int = 1,
    email: Email | None = None,
    sms: Sms | None = None,
    triggered_by: str = "admin_api",
    brand: Brand = BRAND,
    templates: Path | None = None,
    retry: RetryPolicy | None = None,
    now: float | None = None,
    system: IdentitySystem | None = None,
) -> Result:
    """Run *handler* once for *event*.

    Args:
        settings: the handler's own: an instance of its model, or fields for it; default: the model's defaults.
        attempt: which attempt this is, from 1.
        email: the provider of mail; default: a `RecordingEmail` that accepts everything.
        sms: the provider of SMS; default: a `RecordingSms` that accepts everything.
        triggered_by: the service's filter, `USHER_TRIGGERED_BY`.
        brand: the service's name and addresses, for the templates.
        templates: the folder that overrides templates, as `USHER_TEMPLATES_DIR`; the handler's own are found beside its file.
        retry: the service's policy, for handlers without their own.
        now: Unix seconds; default: the present.
        system: the identity system in ``ctx.idp``, such as a `FakeIdentity`; default: none is set up.

    Raises:
        pydantic.ValidationError: *settings* do not fit the handler's model.
        ValueError: *templates* is no folder.
    """
    watched = _Watched(handler, retry or RetryPolicy())
    router = Router([watched.handler], [triggered_by])
    (ruling,) = router.explain(event)
    if not ruling.runs:
        return Result("filtered", ruling.condition)
    email, sms = email or RecordingEmail(), sms or RecordingSms()
    found = _templates(handler, brand, templates)
    sender = MessageSender(found, sender=SENDER, email=email, sms=sms)
    clock, lines = Clock(math.floor(time.time()) if now is None else now), LogCapture()
    async with aiohttp.ClientSession() as http:
        attempts = Attempts(
            router=router, sender=sender, http=http, settings={handler.name: _settings(handler, settings)},
            policy=RetryPolicy(), metrics=Metrics(), logger=_logger(lines), now=clock, rng=random.Random(0),
            system_of=lambda _event: system,
        )  # fmt: skip
        verdict, _ = await attempts.make(InFlight(_delivery(handler, event, attempt, clock()), event))
    return replace(
        _result(verdict, clock()),
        emails=list(email.sent) if isinstance(email, RecordingEmail) else [],
        texts=list(sms.sent) if isinstance(sms, RecordingSms) else [],
        error=watched.raised,
        logs=list(lines.entries),
    )


def _templates(handler: Handler, brand: Brand, overrides: Path | None) -> Templates:
    if overrides is not None and not overrides.is_dir():
        raise ValueError(f"templates={str(overrides)!r} should be a folder that exists")
    return Templates(template_folders([handler]), brand=brand, overrides=overrides)


def _result(verdict: Verdict, now: float) -> Result:
    return Result(
        outcome=verdict.label,
        reason=verdict.reason if isinstance(verdict, Done) else verdict.error,
        dead=isinstance(verdict, Dead),
        retry_in=verdict.due - now if isinstance(verdict, Park) else None,
    )


def _logger(lines: LogCapture) -> FilteringBoundLogger:
    logger: FilteringBoundLogger = structlog.wrap_logger(
        None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    return logger


class _Watched:
    """Wraps a handler: keeps the exception that it raises, and removes the jitter from its policy."""

    def __init__(self, handler: Handler, policy: RetryPolicy) -> None:
        self.raised: Exception | None = None

        async def function(event: Event, ctx: Context) -> None:
            try:
                await handler.function(event, ctx)
            except Exception as error:
                self.raised = error
                raise

        self.handler = replace(handler, function=function, retry=replace(handler.retry or policy, jitter=0.0))


def _settings(handler: Handler, given: BaseModel | Mapping[str, Any] | None) -> BaseModel | None:
    if handler.settings is None or isinstance(given, BaseModel):
        made = given if isinstance(given, BaseModel) else None
    else:
        made = handler.settings.model_validate(dict(given or {}))
    know("handlers", secret_values(made))
    return made


def _delivery(handler: Handler, event: Event, attempt: int, now: float) -> Delivery:
    origin = Origin("identity.events", partition=0, offset=0, timestamp=int(now * 1000), key=event_key(event))
    lane = lane_of(event.source, event.tenant, event.user.id, event.id)
    return Delivery(handler.name, event.uid, lane, origin, value=b"", attempt=attempt - 1)

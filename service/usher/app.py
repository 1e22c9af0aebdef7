"""The composition root: it builds an App from settings, and starts and stops its parts in an order that loses nothing.

Start: the web server (so that probes are answered, and webhooks with 503), the event log, the worker. Stop: not ready, the
worker drains and commits, the web server ends the calls it is answering, the event log is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from usher import background
from usher.channels import Email, Sms
from usher.channels.breaker import CircuitBreaker
from usher.channels.rate_limit import RateLimit
from usher.channels.sender import MessageSender
from usher.channels.transport import Transport
from usher.engine.attempt import Attempts
from usher.engine.limits import Limits
from usher.engine.worker import Worker
from usher.event import Event
from usher.eventlog.port import EventLog, TopicPartition
from usher.handler import Handler, Router
from usher.metrics import Metrics
from usher.parts import find_handlers, open_channels, open_templates
from usher.settings import Settings
from usher.storage import CALLS, LEAVE, drain_budget, open_storage, writing_keys
from usher.systems.feed import Feed
from usher.systems.open import Systems, open_systems
from usher.systems.poll import Pollers
from usher.watchdog import Watchdog
from usher.web import OK, Bounds, Ingress, WebServer, build_web

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_SILENCE = 90.0
"""Seconds without a poll after which the worker counts as not alive: longer than a rebalance with a full drain takes."""


@dataclass
class App:
    """A service that is built and not started yet. `build` makes it, `run` serves, `stop` ends it."""

    settings: Settings
    event_log: EventLog
    router: Router
    metrics: Metrics
    transport: Transport
    systems: Systems
    sender: MessageSender
    handler_settings: Mapping[str, Any]
    now: Callable[[], float]
    rng: random.Random
    logger: FilteringBoundLogger
    worker: Worker | None = None
    port: int = 0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Ask `run` to end, with everything finished that must be."""
        self._stopping.set()
        if self.worker is not None:
            self.worker.stop()

    async def run(self) -> None:
        """Serve until `stop` is called.

        Raises:
            LogMisconfigured: the event log says what is missing.
            OSError: the HTTP address can't be used.
        """
        async with self.transport, Watchdog(self.logger):
            self.worker = self._make_worker()
            if self._stopping.is_set():
                return
            server = self._make_server()
            await server.start()
            self.port = server.port
            self.logger.info(
                "listening",
                http=f"{self.settings.http.host}:{server.port}",
                webhooks=self._webhooks(),
                connections=server.most_connections,
            )
            beside = [asyncio.create_task(self._announce_ready()), asyncio.create_task(self._poll())]
            try:
                await self.worker.run()
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.wait(beside, timeout=LEAVE)
                await server.stop()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.event_log.close(), LEAVE)
                self.logger.info("stopped")

    # `usher.web.Vital`

    async def alive(self) -> Mapping[str, str]:
        silent = self.worker.silent_for() if self.worker else 0.0
        return {
            "polling": OK if silent < _SILENCE else f"the event log was last polled {silent:.0f} s ago",
            "event_log": self.event_log.needs_restart() or OK,
        }

    async def ready(self) -> Mapping[str, str]:
        if self._stopping.is_set():
            return {"worker": "stopping"}
        partitions = {"partitions": _standing(self.event_log.stopped())}
        if self.worker is None or not self.worker.ready:
            loading = (
                [f"{claim.topic}/{claim.partition}" for claim in self.worker.claims.loading] if self.worker else []
            )
            return {"worker": f"loading {', '.join(loading)}" if loading else "starting", **partitions}
        return {
            "worker": OK,
            "event_log": OK if await self.event_log.writable() else "takes no writes",
            **partitions,
            "topics": "; ".join(self.event_log.complaints()) or OK,
            "receipts": self.worker.claims.receipts_trouble or OK,
        }

    def _make_worker(self) -> Worker:
        settings = self.settings
        return Worker(
            self.event_log,
            Attempts(
                router=self.router,
                sender=self.sender,
                http=self.transport.session,
                settings=self.handler_settings,
                policy=settings.retry_policy,
                metrics=self.metrics,
                logger=self.logger,
                now=self.now,
                rng=self.rng,
                system_of=self.systems.of,
            ),
            group=settings.group,
            metrics=self.metrics,
            logger=self.logger,
            rng=self.rng,
            sources=self.systems.sources_of_topics(settings),
            find_keys=partial(writing_keys, settings, self.event_log) if settings.receipts.on else None,
            limits=Limits(
                records=settings.max_in_flight,
                replays=settings.sends_at_once,
                drain=drain_budget(settings),
                handler_gone_after=settings.handler_gone_after,
                undecodable_ratio=settings.undecodable_ratio,
                undecodable_at_least=settings.undecodable_at_least,
                dedupe_window=settings.dedupe_window,
            ),
        )

    def _make_server(self) -> WebServer:
        address, limits = self.settings.http, self.settings.http_limits
        ingresses = {
            system.path: Ingress(
                self.event_log,
                self.settings.ingest_topic,
                system.source,
                self.metrics,
                self.logger,
                others=self.systems.others(system),
                enrich=system.enrich,
                limit=system.limit,
                body_timeout=limits.body_timeout,
            )
            for system in self.systems
            if system.receives
        }
        application = build_web(vital=self, metrics=self.metrics, logger=self.logger, ingresses=ingresses)
        bounds, others = Bounds(self.metrics, self.logger), self.settings.sends_at_once
        return WebServer(
            application, address.host, address.port, limits=limits, bounds=bounds, others=others, grace=CALLS
        )

    def _webhooks(self) -> str:
        paths = [system.path for system in self.systems if system.receives]
        return ", ".join(paths) or "none: set USHER_<SYSTEM>__WEBHOOK_SECRET to open /ingest/<system>"

    async def _poll(self) -> None:
        """Poll the systems that are set to be polled, from when the event log is open until the worker stops."""
        feeds: list[Feed] = [feed for system in self.systems for feed in system.feeds]
        if not feeds:
            return
        await self._until_ready()
        pollers = Pollers(
            self.event_log,
            self.settings.ingest_topic,
            feeds,
            metrics=self.metrics,
            logger=self.logger,
            rng=self.rng,
            now=self.now,
        )
        polling, stopping = background.begin(pollers.run), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([polling, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            polling.cancel()
            stopping.cancel()
            await asyncio.gather(polling, stopping, return_exceptions=True)

    async def _announce_ready(self) -> None:
        await self._until_ready()
        self.logger.info(
            "ready",
            event_log=str(self.settings.event_log),
            group=self.settings.group,
            topics=list(self.settings.topic_names),
        )

    async def _until_ready(self) -> None:
        while self.worker is None or not self.worker.ready:  # noqa: ASYNC110 - probes ask by themselves
            await asyncio.sleep(0.05)


def _standing(stopped: Mapping[TopicPartition, str]) -> str:
    """Return which partitions stand still, and why: those with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for (topic, partition), reason in sorted(stopped.items()):
        by_reason.setdefault(reason, []).append(f"{topic}/{partition}")
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()) or OK


def build(
    settings: Settings,
    *,
    event_log: EventLog | None = None,
    handlers: Sequence[Handler] | None = None,
    email: Email | None = None,
    sms: Sms | None = None,
    now: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> App:
    """Build an App; parts of it can be replaced. Nothing is connected yet, and nothing runs.

    Raises:
        HandlerError, SettingsError: Usher can't start like this; the text says what is wrong, where, and how to mend it.
    """
    found = list(find_handlers(settings) if handlers is None else handlers)
    metrics, transport = Metrics(), Transport(connections=settings.sends_at_once, proxies=settings.proxy)
    default_email, default_sms = open_channels(settings, transport)
    templates = open_templates(settings, found)
    systems = open_systems(settings, lambda: transport.session)
    sender = MessageSender(
        templates,
        sender=settings.mail_from,
        email=CircuitBreaker(email or default_email, "email", metrics, settings.sends_at_once),
        sms=CircuitBreaker(sms or default_sms, "sms", metrics, settings.sends_at_once),
        internal_domains=settings.mail_internal_domains,
        at_once=settings.sends_at_once,
        mails_at_once=settings.mails_at_once,
        rate_limit_of=_rate_limits(systems, metrics),
    )
    return App(
        settings=settings,
        event_log=event_log or open_storage(settings),
        router=Router(found, settings.triggered_by),
        metrics=metrics,
        transport=transport,
        systems=systems,
        sender=sender,
        handler_settings=settings.for_handlers(found),
        now=now,
        rng=rng or random.Random(),  # noqa: S311 - jitter, no secret
        logger=structlog.get_logger(
            "usher"
        ).bind(),  # bound once: a lazy proxy would make a new logger for each delivery
    )


def _rate_limits(systems: Systems, metrics: Metrics) -> Callable[[Event], RateLimit | None]:
    """Return a function that finds the rate limit of an event's tenant."""
    rate_limits = {
        system.title: RateLimit(system.title, system.messages_per_minute, metrics)
        for system in systems
        if system.messages_per_minute is not None
    }

    def rate_limit_of(event: Event) -> RateLimit | None:
        system = systems.which(event) if rate_limits else None
        return None if system is None else rate_limits.get(system.title)

    return rate_limit_of

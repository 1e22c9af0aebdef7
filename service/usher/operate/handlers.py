"""The handlers that run: each with the policy and the settings that apply to it under the present settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from usher.handler import Handler, Router
from usher.outcome import duration_text, seconds
from usher.parts import find_handlers
from usher.plugins import find
from usher.settings import Settings


@dataclass(frozen=True, slots=True)
class RunningHandler:
    """A handler that runs. Durations are in seconds; *expires_after* None: never. *settings* are the names of its own."""

    handler: str
    types: list[str]
    triggered_by: list[str]
    retry_delays: list[float]
    jitter: float
    timeout: float
    expires_after: float | None
    ordered: bool
    on_unknown: str | None
    settings: list[str]
    origin: str
    summary: str

    @property
    def retries(self) -> str:
        """The delays before each retry, as settings write them."""
        return ", ".join(map(duration_text, self.retry_delays)) or "no retry"

    @property
    def expires(self) -> str:
        """The age at which its deliveries expire, as settings write it."""
        return "never" if self.expires_after is None else duration_text(self.expires_after)


def list_handlers(settings: Settings) -> tuple[list[RunningHandler], list[str]]:
    """Return the handlers that run, and the names of those that are off.

    Raises:
        HandlerError, SettingsError
    """
    running = running_handlers(settings, find_handlers(settings))
    off = {handler.name for handler in find(settings.handlers_dir)} - {handler.handler for handler in running}
    return running, sorted(off)


def running_handlers(settings: Settings, found: Sequence[Handler]) -> list[RunningHandler]:
    """Return the handlers that run, of those that were *found*.

    Raises:
        HandlerError: two of them have the same name.
        SettingsError: the settings of one of them are wrong.
    """
    settings.for_handlers(found)
    return [_running(handler, settings) for handler in Router(found, settings.triggered_by).handlers.values()]


def _running(handler: Handler, settings: Settings) -> RunningHandler:
    policy, own = handler.retry or settings.retry_policy, handler.settings
    return RunningHandler(
        handler=handler.name,
        types=sorted(handler.types),
        triggered_by=sorted(handler.triggered_by or ()),
        retry_delays=[seconds(delay) for delay in policy.delays],
        jitter=policy.jitter,
        timeout=handler.timeout,
        expires_after=handler.expires_after,
        ordered=handler.ordered,
        on_unknown=handler.on_unknown,
        settings=[f"USHER_{handler.name.upper()}__{name.upper()}" for name in own.model_fields] if own else [],
        origin=handler.origin,
        summary=handler.summary,
    )

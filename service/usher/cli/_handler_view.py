"""The table of handlers: each with the policy that applies to it under the present settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from usher.cli._console import span
from usher.handler import Handler, Router
from usher.outcome import seconds
from usher.settings import Settings

COLUMNS = ("handler", "types", "triggered by", "retries after", "expires after", "from", "what it does")


def rows(settings: Settings, router: Router, found: Sequence[Handler]) -> list[dict[str, object]]:
    """Return a row for each handler of *router*, which was made of *found*; durations are in seconds, None is never.

    Raises:
        SettingsError: the settings of one of them are wrong.
    """
    settings.for_handlers(found)
    return [_row(handler, settings) for handler in router.handlers.values()]


def cells(row: Mapping[str, object]) -> list[object]:
    """Return the cells under `COLUMNS` for *row*."""
    delays, expires = row["retry_delays"], row["expires_after"]
    return [
        row["handler"],
        _joined(row["types"]),
        _joined(row["triggered_by"]),
        ", ".join(map(span, delays)) if isinstance(delays, list) and delays else "no retry",
        span(expires) if isinstance(expires, float) else "never",
        row["origin"],
        row["summary"],
    ]


def own_settings(handlers: Sequence[Mapping[str, object]]) -> list[tuple[str, object]]:
    """Return the names of the handlers' own settings in the rows *handlers*, each with its handler."""
    return [(name, row["handler"]) for row in handlers if isinstance(row["settings"], list) for name in row["settings"]]


def _row(handler: Handler, settings: Settings) -> dict[str, object]:
    policy = handler.retry or settings.retry_policy
    own = handler.settings
    return {
        "handler": handler.name,
        "types": sorted(handler.types),
        "triggered_by": sorted(handler.triggered_by or ()),
        "retry_delays": [seconds(delay) for delay in policy.delays],
        "jitter": policy.jitter,
        "timeout": handler.timeout,
        "expires_after": handler.expires_after,
        "ordered": handler.ordered,
        "on_unknown": handler.on_unknown,
        "settings": [f"USHER_{handler.name.upper()}__{name.upper()}" for name in own.model_fields] if own else [],
        "origin": handler.origin,
        "summary": handler.summary,
    }


def _joined(names: object) -> str:
    return ", ".join(names) if isinstance(names, list) else ""

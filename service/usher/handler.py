"""A Handler is an async function of ``(event, ctx)``, declared with ``@on(...)``; the Router says which ones an event is for.

It hides what makes a function a handler. Whether a handler runs is decided here only: the engine and ``usher explain`` ask
the same table.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from usher.context import Context
from usher.event import UNKNOWN, Event
from usher.event_types import event_types, renamed_types
from usher.outcome import Duration, OnUnknown, RetryPolicy, seconds

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DEFAULT_TIMEOUT = 60.0
_DEFAULT_EXPIRY = timedelta(hours=24)
_MOST_KINDS = 1024
"""Pairs of a type and an actor for which the router remembers what it found: many more than there are of interest."""


class HandlerError(Exception):
    """A handler is declared or registered wrongly: Usher does not start. The message says what, where and how to mend it."""


HandlerFunction = Callable[[Event, Context], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Handler:
    """A declared handler: the function, and when and how it runs. To call it is to call the function.

    ``triggered_by`` None means the filter of the service. ``timeout`` is in seconds and begins with the attempt.
    ``expires_after`` is in seconds from the event's own time; None: it never expires. ``optional``: it runs only where it is named.
    Not ``sends``: it never sends a message.
    ``origin`` is ``file:line``.
    """

    name: str
    function: HandlerFunction
    types: frozenset[str]
    triggered_by: frozenset[str] | None = None
    retry: RetryPolicy | None = None
    timeout: float = _DEFAULT_TIMEOUT
    ordered: bool = True
    expires_after: float | None = _DEFAULT_EXPIRY.total_seconds()
    on_unknown: OnUnknown | None = None
    settings: type[BaseModel] | None = None
    optional: bool = False
    sends: bool = True
    origin: str = ""

    async def __call__(self, event: Event, ctx: Context) -> None:
        await self.function(event, ctx)

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


_OPTIONS = (
    "triggered_by",
    "retry",
    "timeout",
    "ordered",
    "expires_after",
    "on_unknown",
    "settings",
    "optional",
    "sends",
)


def on(
    *types: str,
    triggered_by: str | Iterable[str] | None = None,
    retry: RetryPolicy | None = None,
    timeout: Duration = _DEFAULT_TIMEOUT,
    ordered: bool = True,
    expires_after: Duration | None = _DEFAULT_EXPIRY,
    on_unknown: OnUnknown | None = None,
    settings: type[BaseModel] | None = None,
    optional: bool = False,
    sends: bool = True,
    **unknown: object,
) -> Callable[[HandlerFunction], Handler]:
    """Declare an async function of ``(event, ctx)`` as the handler of these event types.

    Args:
        types: canonical types, or raw names of a source.
        triggered_by: who must have triggered the event; None: as `USHER_TRIGGERED_BY` says. ``"unknown"`` is allowed here.
        retry: when to try again; None: as `USHER_RETRY_DELAYS` says.
        timeout: how long one attempt may take.
        ordered: False: deliveries of one user may run at the same time, in any order.
        expires_after: an event that is older, by its own time, becomes a dead letter and is not sent; None: never.
        on_unknown: what to do when it is not known whether a message was sent: ``resend`` or ``dead-letter``;
            None: mail is sent again, an SMS becomes a dead letter.
        settings: a pydantic model, filled from ``USHER_<NAME OF THE HANDLER>__<FIELD>``; the handler finds it in ``ctx.settings``.
        optional: True: it is off until `USHER_HANDLERS` names it. For a handler that changes something elsewhere.
        sends: False: it never sends a message, so nobody is left untold where it fails (`usher untold`).

    Raises:
        HandlerError: at import; says in which file and line, and how to mend it.
    """
    if len(types) == 1 and callable(types[0]):
        raise HandlerError(f'{_where(types[0])}: write @on("user.created"), with the event types; @on alone names none')

    def declare(function: HandlerFunction) -> Handler:
        where, name = _where(function), getattr(function, "__name__", repr(function))
        _check_function(function, name, where)
        _check_options(unknown, where, name)
        _check_types(types, where, name)
        _check_values(
            {"retry": retry, "on_unknown": on_unknown, "settings": settings, "triggered_by": triggered_by}, where, name
        )
        timeout_s, expiry_s = _checked_times(timeout, expires_after, where, name)
        return Handler(
            name, function, frozenset(types), None if triggered_by is None else _names(triggered_by), retry, timeout_s, ordered,
            expiry_s, on_unknown, settings, optional, sends, where,
        )  # fmt: skip

    return declare


def _checked_times(
    timeout: Duration, expires_after: Duration | None, where: str, name: str
) -> tuple[float, float | None]:
    """Return the two in seconds."""
    try:
        timeout_s, expiry_s = seconds(timeout), None if expires_after is None else seconds(expires_after)
    except ValueError as error:
        raise HandlerError(f"{where}: handler {name!r}: {error}") from None
    if timeout_s == 0:
        raise HandlerError(
            f"{where}: handler {name!r}: timeout={timeout!r} leaves it no time; write a longer one, as in '60s'"
        )
    return timeout_s, expiry_s


@dataclass(frozen=True, slots=True)
class Ruling:
    """Whether one handler runs for one event, and the condition that decides it."""

    handler: Handler
    runs: bool
    condition: str


class Router:
    """Says which handlers an event is for: by its type, and by who triggered it.

    *triggered_by* is the filter of the service. A handler may replace it by its own.

    Raises:
        HandlerError: two handlers have one name.
    """

    def __init__(self, handlers: Iterable[Handler], triggered_by: Iterable[str]) -> None:
        self.triggered_by = _names(triggered_by)
        by_name: dict[str, Handler] = {}
        for handler in handlers:
            if (other := by_name.get(handler.name)) is not None:
                raise HandlerError(
                    f"two handlers are named {handler.name!r}: {other.origin} and {handler.origin}; rename one, "
                    "or remove one"
                )
            effective = handler.triggered_by or self.triggered_by
            by_name[handler.name] = replace(handler, triggered_by=effective)
        self.handlers: Mapping[str, Handler] = dict(sorted(by_name.items()))
        self._by_type: dict[str, list[Handler]] = {}
        self._matching = lru_cache(maxsize=_MOST_KINDS)(self._find)
        for handler in self.handlers.values():
            for type_ in handler.types:
                self._by_type.setdefault(type_, []).append(handler)

    def match(self, event: Event) -> Sequence[Handler]:
        """Return the handlers that run for *event*, sorted by name."""
        return self._matching(event.type, event.context.triggered_by)

    def _find(self, type_: str, actor: str) -> tuple[Handler, ...]:
        return tuple(h for h in self._by_type.get(type_, ()) if actor in (h.triggered_by or ()))

    def explain(self, event: Event) -> list[Ruling]:
        """Say for each handler whether it runs, and why. Agrees with `match`."""
        return [self._rule(handler, event) for handler in self.handlers.values()]

    def why_filtered(self, event: Event) -> str:
        """Return why `match` found no handler, for the metric: ``type`` or ``triggered_by``."""
        return "triggered_by" if event.type in self._by_type else "type"

    @property
    def actors(self) -> frozenset[str]:
        """Every ``triggered_by`` for which some handler runs."""
        return frozenset(actor for handler in self.handlers.values() for actor in handler.triggered_by or ())

    @staticmethod
    def _rule(handler: Handler, event: Event) -> Ruling:
        actor, wanted = event.context.triggered_by, handler.triggered_by or frozenset()
        if event.type not in handler.types:
            return Ruling(handler, False, f"type is {event.type!r}, the handler is for {_listed(handler.types)}")
        if actor not in wanted:
            hint = ": the event does not say who triggered it" if actor == UNKNOWN else ""
            return Ruling(handler, False, f"context.triggered_by is {actor!r}, not {_listed(wanted)}{hint}")
        return Ruling(handler, True, f"type is {event.type!r} and context.triggered_by is {actor!r}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` for a misspelt name, or an empty text."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _check_function(function: object, name: str, where: str) -> None:
    if not inspect.iscoroutinefunction(function):
        raise HandlerError(f"{where}: handler {name!r} is not async; write `async def {name}(event, ctx)`")
    if not _NAME.fullmatch(name):
        raise HandlerError(
            f"{where}: handler name {name!r} should be lower case letters, digits and _, as in 'welcome_email'"
        )
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    extra = [p for p in parameters[2:] if p.default is p.empty and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    if len(positional) < 2 or extra:
        raise HandlerError(
            f"{where}: handler {name!r} takes {inspect.signature(function)}; write `async def {name}(event: Event, ctx: Context)`"
        )


def _check_options(unknown: Mapping[str, object], where: str, name: str) -> None:
    for option in unknown:
        raise HandlerError(
            f"{where}: handler {name!r}: @on has no option {option!r}{nearest(option, _OPTIONS)}; it takes {', '.join(_OPTIONS)}"
        )


def _check_values(values: Mapping[str, Any], where: str, name: str) -> None:
    def refuse(option: str, wanted: str) -> HandlerError:
        return HandlerError(f"{where}: handler {name!r}: {option}={values[option]!r} should {wanted}")

    if not isinstance(values["retry"], RetryPolicy | None):
        raise refuse("retry", "be a RetryPolicy(...)")
    if values["on_unknown"] not in {None, "resend", "dead-letter"}:
        raise refuse("on_unknown", "be 'resend' or 'dead-letter'")
    model = values["settings"]
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise refuse("settings", "be a class, a pydantic.BaseModel")
    actors = values["triggered_by"]
    if actors is not None and not (_is_names(actors) and _names(actors)):
        raise refuse(
            "triggered_by", "name who may trigger it, as in 'admin_api', or be left out for USHER_TRIGGERED_BY"
        )


def _check_types(types: Sequence[object], where: str, name: str) -> None:
    if not types or not all(isinstance(type_, str) for type_ in types):
        raise HandlerError(f'{where}: handler {name!r}: name at least one event type, as in @on("user.created")')
    known, renamed = event_types(), renamed_types()
    for type_ in map(str, types):
        if (canonical := renamed.get(type_)) is not None:
            raise HandlerError(f"{where}: handler {name!r}: the event type {type_!r} is called {canonical!r} here")
        if type_ not in known:
            raise HandlerError(
                f"{where}: handler {name!r}: there is no event type {type_!r}{nearest(type_, known)}; "
                "`usher handlers --types` lists them"
            )


def _is_names(names: object) -> bool:
    if isinstance(names, str):
        return bool(names)
    return isinstance(names, Iterable) and all(isinstance(name, str) and name for name in names)


def _names(names: str | Iterable[str]) -> frozenset[str]:
    return frozenset([names] if isinstance(names, str) else names)


def _where(function: object) -> str:
    code = getattr(function, "__code__", None)
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code else repr(function)


def _listed(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in sorted(names))

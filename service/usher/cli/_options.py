"""The options that several commands share. An option that mirrors a setting overrides its USHER_ variable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from usher.cli._exits import Stop

if TYPE_CHECKING:
    from usher.event import Event
    from usher.settings import Settings

_MIRRORS = "Instead of a USHER_ variable"

EventLog = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The event log: sqlite:///PATH or kafka://HOST:PORT [USHER_EVENT_LOG].",
        rich_help_panel=_MIRRORS,
    ),
]
Group = Annotated[str | None, typer.Option(help="The consumer group [USHER_GROUP].", rich_help_panel=_MIRRORS)]
Topics = Annotated[
    str | None,
    typer.Option(metavar="NAME[,NAME]", help="The source topics [USHER_TOPICS].", rich_help_panel=_MIRRORS),
]
Handlers = Annotated[
    str | None,
    typer.Option(
        "--handlers", metavar="NAME[,NAME]", help="The handlers to run [USHER_HANDLERS].", rich_help_panel=_MIRRORS
    ),
]
HandlersDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder of your own handlers [USHER_HANDLERS_DIR].", rich_help_panel=_MIRRORS),
]
TemplatesDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The folder of your own templates [USHER_TEMPLATES_DIR].", rich_help_panel=_MIRRORS
    ),
]
TriggeredBy = Annotated[
    str | None,
    typer.Option(
        metavar="WHO[,WHO]", help="Who must have triggered an event [USHER_TRIGGERED_BY].", rich_help_panel=_MIRRORS
    ),
]
Http = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="The address to serve on; port 0: any free port [USHER_HTTP].",
        rich_help_panel=_MIRRORS,
    ),
]
StartFrom = Annotated[
    str | None,
    typer.Option(
        metavar="latest|earliest|TIME", help="Where a new group starts [USHER_START_FROM].", rich_help_panel=_MIRRORS
    ),
]
Email = Annotated[
    str | None,
    typer.Option(metavar="outbox|sendgrid|smtp", help="The provider of mail [USHER_EMAIL].", rich_help_panel=_MIRRORS),
]
Sms = Annotated[
    str | None,
    typer.Option(metavar="outbox|twilio", help="The provider of SMS [USHER_SMS].", rich_help_panel=_MIRRORS),
]
OutboxDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The folder that the outbox writes to [USHER_OUTBOX_DIR].", rich_help_panel=_MIRRORS
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(metavar="LEVEL", help="debug, info, warning or error [USHER_LOG_LEVEL].", rich_help_panel=_MIRRORS),
]
Source = Annotated[
    str | None,
    typer.Option(
        metavar="SYSTEM[/NAME]",
        help="The system that sent the events in its own form: authgear, auth0, genauth, keycloak; for a further tenant keycloak/NAME.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON array on stdout.")]


def load(**overrides: Any) -> Settings:
    """Load the settings; an override that is None was not given.

    Raises:
        SettingsError
    """
    from usher.settings import Settings

    log_to_stderr()
    return Settings.load(**overrides)


def one_event(settings: Settings, file: str, source: str | None) -> Event:
    """Read the one event in *file*, as the option *source* says.

    Raises:
        Stop: it holds something else (1).
        OperateError, SettingsError
    """
    from usher.operate.errors import NotDecodable
    from usher.operate.event_files import read_one

    try:
        return read_one(settings, file, source)
    except NotDecodable as error:
        raise Stop(f"{error}{source_hint(source)}") from None


def source_hint(source: str | None) -> str:
    """Return the hint to give a source where something is no event, unless one was given."""
    return "" if source else "; if an identity system sent it in its own form, name the system with --source"


def log_to_stderr() -> None:
    """Log to stderr from warning on: stdout is for the command's result. `usher run` sets its own level."""
    from usher import logs

    logs.configure("warning")


def duration(option: str, text: str) -> float:
    """Return the seconds that *text* means, the value of *option*.

    Raises:
        typer.BadParameter
    """
    from usher.outcome import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None

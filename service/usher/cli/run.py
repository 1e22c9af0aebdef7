"""`usher run`: run the worker."""

from __future__ import annotations

import typer

from usher.cli import _options as opt


def run(
    *,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
    triggered_by: opt.TriggeredBy = None,
    handlers: opt.Handlers = None,
    handlers_dir: opt.HandlersDir = None,
    templates_dir: opt.TemplatesDir = None,
    http: opt.Http = None,
    start_from: opt.StartFrom = None,
    email: opt.Email = None,
    sms: opt.Sms = None,
    outbox_dir: opt.OutboxDir = None,
    log_level: opt.LogLevel = None,
) -> None:
    """Run the worker until SIGTERM or SIGINT: read events, run handlers, serve webhooks, probes and metrics."""
    from usher.cli import _process as process

    settings = opt.load(
        event_log=event_log,
        group=group,
        topics=topics,
        triggered_by=triggered_by,
        handlers=handlers,
        handlers_dir=handlers_dir,
        templates_dir=templates_dir,
        http=http,
        start_from=start_from,
        email=email,
        sms=sms,
        outbox_dir=outbox_dir,
        log_level=log_level,
    )
    raise typer.Exit(process.run(settings))

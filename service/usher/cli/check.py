"""`usher check`: find out whether a worker with these settings could do its work."""

from __future__ import annotations

import asyncio

from usher.cli import _options as opt
from usher.cli._console import print_json, table
from usher.cli._exits import Exit, Stop


def check(
    *,
    json: opt.Json = False,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
    triggered_by: opt.TriggeredBy = None,
    handlers: opt.Handlers = None,
    handlers_dir: opt.HandlersDir = None,
    templates_dir: opt.TemplatesDir = None,
    email: opt.Email = None,
    sms: opt.Sms = None,
    outbox_dir: opt.OutboxDir = None,
) -> None:
    """Check settings, handlers, templates, channels, identity systems and the event log. Exit 1 on problems.

    Each problem is shown with its solution. Secrets are masked.

    The APIs of identity systems are called, those of mail and SMS providers are not. Nothing is sent.
    """
    from usher.cli import _checks

    opt.log_to_stderr()
    overrides = {
        "event_log": event_log,
        "group": group,
        "topics": topics,
        "triggered_by": triggered_by,
        "handlers": handlers,
        "handlers_dir": handlers_dir,
        "templates_dir": templates_dir,
        "email": email,
        "sms": sms,
        "outbox_dir": outbox_dir,
    }
    lines = asyncio.run(_checks.all_of(overrides))
    if json:
        print_json({"area": line.area, "status": line.status, "what": line.what, "text": line.text} for line in lines)
    else:
        table(("status", "area", "what", "found"), ((line.status, line.area, line.what, line.text) for line in lines))
    problems = [line for line in lines if line.status == "problem"]
    if problems:
        unreachable = all(line.unreachable for line in problems)
        code = Exit.LOG_UNREACHABLE if unreachable else Exit.FAILED
        raise Stop(f"{len(problems)} problem{'s' * (len(problems) != 1)}", code)

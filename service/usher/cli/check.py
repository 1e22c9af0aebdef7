"""`usher check`: find out whether a worker with these settings could do its work."""

from __future__ import annotations

import asyncio

from usher.cli import _options as opt
from usher.cli._exits import Exit, Stop
from usher.terminal import print_json, table


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
    from usher.operate.checks import check_all

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
    results = asyncio.run(check_all(overrides))
    if json:
        print_json({"area": one.area, "status": one.status, "what": one.what, "text": one.text} for one in results)
    else:
        table(("status", "area", "what", "found"), ((one.status, one.area, one.what, one.text) for one in results))
    problems = [one for one in results if one.status == "problem"]
    if problems:
        unreachable = all(one.unreachable for one in problems)
        code = Exit.LOG_UNREACHABLE if unreachable else Exit.FAILED
        raise Stop(f"{len(problems)} problem{'s' * (len(problems) != 1)}", code)

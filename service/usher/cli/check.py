"""`usher check`: find out whether a worker with these settings could do its work."""

from __future__ import annotations

import asyncio

from usher.cli import _options as opt
from usher.cli._exits import Exit, Stop
from usher.terminal import print_json, table

_CODES = {"refused": Exit.USAGE, "other": Exit.FAILED, "unreachable": Exit.LOG_UNREACHABLE}
"""The exit code of each kind of problem; the first one that was found counts."""


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
    """Check settings, handlers, templates, channels, identity systems and the event log.

    Each problem is shown with its solution. Secrets are masked.

    Exit 2 where `usher run` would refuse the settings or a handler, 1 on other problems.

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
        kinds = {one.kind for one in problems}
        code = next(_CODES[kind] for kind in _CODES if kind in kinds)
        raise Stop(f"{len(problems)} problem{'s' * (len(problems) != 1)}", code)

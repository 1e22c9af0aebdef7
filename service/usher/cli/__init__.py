"""The command `usher`: its subcommands and their exit codes. It presents results, and decides nothing else.

Exit codes, the same for every command:

====  ======================================================================================
0     done, and no problem was found
1     the command found problems, or some of what was asked for failed
2     wrong usage, wrong settings or a wrong handler; also: a question that needs a terminal
3     the event log can't be reached
4     there is no such event, dead letter, template or file
130   interrupted
====  ======================================================================================

With `--json` a command prints one complete JSON array on stdout and nothing else there; messages and logs go to stderr. A
command asks a question only on a terminal; elsewhere it names the option that answers the question.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from usher import __version__
from usher.cli import check, demo, dlq, emit, explain, handlers, new, preview, receipts, run, topics, untold, why
from usher.cli._exits import Exit, code_of
from usher.terminal import flushed, open_closed_streams, result, say

_EPILOG = (
    "Exit codes: 0 done; 1 problems found, or something failed; 2 wrong usage, settings or handler; "
    "3 the event log can't be reached; 4 no such event, dead letter, template or file; 130 interrupted. "
    "Settings are read from USHER_ variables, in the environment or in .env; the common ones have options."
)


def _print_version(wanted: bool) -> None:
    if wanted:
        result(f"usher {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="usher",
    help="Run hooks on identity events: users get messages, reliably and in order, about what was done to their accounts.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _whole(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


app.command()(demo.demo)
app.command()(run.run)
app.command()(check.check)
app.command()(handlers.handlers)
app.command()(explain.explain)
app.command()(why.why)
app.command()(untold.untold)
app.command()(emit.emit)
app.add_typer(topics.app, name="topics")
app.add_typer(dlq.app, name="dlq")
app.add_typer(receipts.app, name="receipts")
app.command()(preview.preview)
app.add_typer(new.app, name="new")

_command = functools.cache(get_command)  # to build it takes longer than most commands take to run


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; *argv* are the arguments, by default those of the process."""
    open_closed_streams()
    code = _run(argv)
    return code if flushed() else code or Exit.FAILED


def _run(argv: Sequence[str] | None) -> int:
    try:
        _command(app)(None if argv is None else list(argv), prog_name="usher")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.OK
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:
        code = code_of(error)
        if code is None:
            raise
        say(f"usher: {error}")
        return code
    return Exit.OK

"""`usher preview`: show the message that a template makes of an event."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usher.cli import _options as opt
from usher.cli._console import result, say
from usher.cli._exits import Exit, Stop


def preview(
    *,
    template: Annotated[str, typer.Argument(metavar="TEMPLATE", help="The template's name, as in welcome_email.")],
    event: Annotated[str, typer.Option(metavar="FILE", help="A file with one event; - is stdin.")],
    source: opt.Source = None,
    language: Annotated[
        str | None, typer.Option(metavar="TAG", help="Use this language and not the user's, as in de.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="PATH", help="Write the HTML part to this file.")] = None,
    handlers_dir: opt.HandlersDir = None,
    templates_dir: opt.TemplatesDir = None,
) -> None:
    """Render a template with an event: as mail, as SMS, or both, depending on its files."""
    from usher.cli._events import read_one
    from usher.outcome import Reject
    from usher.parts import find_handlers, open_templates
    from usher.systems import open_source

    settings = opt.load(handlers_dir=handlers_dir, templates_dir=templates_dir)
    templates = open_templates(settings, find_handlers(settings))
    kinds = templates.kinds(template)
    if not kinds:
        raise Stop("; ".join(templates.check([template])), Exit.NOT_FOUND)
    about = read_one(event, open_source(settings, source) if source else None)
    if language is not None:
        about = about.model_copy(update={"context": about.context.model_copy(update={"language": language})})
    try:
        if "mail" in kinds:
            mail = templates.mail(template, about)
            result(f"Subject: {mail.subject}\nLanguage: {mail.language}\n\n{mail.text}")
            _write_html(html, mail.html)
        if "SMS" in kinds:
            sms = templates.sms(template, about)
            size = sms.length
            result(f"SMS, {size.segments} segment{'s' * (size.segments != 1)} ({sms.language}):\n{sms.text}")
    except Reject as error:
        raise Stop(error.reason) from None


def _write_html(path: Path | None, html: str | None) -> None:
    if path is None:
        return
    if html is None:
        raise Stop("the template has no HTML part in this language: add its .html file")
    path.write_text(html, encoding="utf-8")
    say(f"The HTML part is in {path}.")

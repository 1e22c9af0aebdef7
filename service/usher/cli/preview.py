"""`usher preview`: show the message that a template makes of an event."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usher.cli import _options as opt
from usher.cli._exits import Stop
from usher.terminal import result, say


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
    from usher.operate.preview import preview as render

    settings = opt.load(handlers_dir=handlers_dir, templates_dir=templates_dir)
    rendered = render(settings, template, opt.one_event(settings, event, source), language=language)
    if (mail := rendered.mail) is not None:
        result(f"Subject: {mail.subject}\nLanguage: {mail.language}\n\n{mail.text}")
        _write_html(html, mail.html)
    if (sms := rendered.sms) is not None:
        size = sms.length
        result(f"SMS, {size.segments} segment{'s' * (size.segments != 1)} ({sms.language}):\n{sms.text}")


def _write_html(path: Path | None, html: str | None) -> None:
    if path is None:
        return
    if html is None:
        raise Stop("the template has no HTML part in this language: add its .html file")
    path.write_text(html, encoding="utf-8")
    say(f"The HTML part is in {path}.")

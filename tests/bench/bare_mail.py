"""The welcome mail without Usher: from a record to subject, text and HTML, by the templates that Usher ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, select_autoescape
from tests.bench.records import OURS

import usher_handlers
from usher import channels

FROM_ADDRESS, FROM_NAME = "accounts@example.org", "Example Accounts"
KEY = "SG.bench"
LOGIN_URL = "https://app.example.org/login"
SERVICE = "Example"
_LANGUAGES = ("en", "de")
_FOLDERS = [
    Path(usher_handlers.__file__).parent / "templates" / "welcome_email",
    Path(channels.__file__).parent / "layout",
]


class BareMail(NamedTuple):
    to: str
    subject: str
    text: str
    html: str


class BareMails:
    """Makes mails; templates are compiled once."""

    def __init__(self) -> None:
        environment = Environment(
            loader=FileSystemLoader(_FOLDERS), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
        )
        self._templates = {
            language: (environment.get_template(f"{language}.txt"), environment.get_template(f"{language}.html"))
            for language in _LANGUAGES
        }

    def of(self, event: dict[str, Any]) -> BareMail | None:
        """The mail about an event; None: an administrator did not cause it."""
        if event["context"]["triggered_by"] != OURS:
            return None
        language = event["context"]["language"]
        attributes = event["payload"]["user"]["standard_attributes"]
        values = {
            "user": {"username": attributes.get("preferred_username")},
            "email": attributes["email"],
            "service_name": SERVICE,
            "login_url": LOGIN_URL,
            "language": language,
        }
        text, html = (template.render(values) for template in self._templates[language])
        first, _, rest = text.partition("\n")
        return BareMail(attributes["email"], first.removeprefix("Subject: "), rest.strip() + "\n", html)


def payload(mail: BareMail) -> dict[str, Any]:
    """What SendGrid is sent for a mail."""
    return {
        "from": {"email": FROM_ADDRESS, "name": FROM_NAME},
        "subject": mail.subject,
        "personalizations": [{"to": [{"email": mail.to}]}],
        "content": [{"type": "text/plain", "value": mail.text}, {"type": "text/html", "value": mail.html}],
    }

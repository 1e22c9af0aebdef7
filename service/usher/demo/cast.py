"""The events of the demo: invented people, what is done to their accounts, and which messages must follow.

The judge, the story and the timeline all read this list; nothing else says what must happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from usher.demo import systems
from usher.systems.decode import decode
from usher.testing import raw_event

SERVICE_NAME = "Harbour Rowing Club"
LOGIN_URL = "https://login.harbour.example"
MAIL_FROM = f"{SERVICE_NAME} <accounts@example.org>"


@dataclass(frozen=True, slots=True)
class Scene:
    """One event. *handler* is the handler to watch; *to* is the address that it must write to in the end, None: no message.

    *id* is the event's id, *name* the user's name, *about* a few words on what happened. *system* is where the event comes
    from; *user* is the user's id there, for all systems but Authgear.
    """

    id: str
    name: str
    about: str
    by: Literal["webhook", "file"]
    handler: str
    to: str | None
    details: Mapping[str, Any] = field(default_factory=dict)
    system: str = "authgear"
    user: str = ""

    def body(self, now: float) -> bytes:
        """Make the event as its system sends it, on one line; it happened at *now*, in Unix seconds."""
        if self.system != "authgear":
            return systems.created(self.system, self.user, self.name, _address(self.name), now)
        user = {"email": _address(self.name), "name": self.name, "tenant": "harbour"}
        return raw_event(**{"id": self.id, "timestamp": now, **user, **self.details})

    @property
    def type(self) -> str:
        """The canonical type."""
        return decode(self.body(0)).type if self.system == "authgear" else "user.created"


def _address(name: str) -> str:
    return f"{name.lower()}@example.org"


_WELCOME = "welcome_email"
_SELF = {"triggered_by": "user"}
_PHONE = "+12025550123"

MARA = Scene("0000000000000001", "Mara", "by an administrator", "webhook", _WELCOME, _address("Mara"))
JONAS = Scene(
    "0000000000000002", "Jonas", "by an administrator; reads German", "webhook", _WELCOME, _address("Jonas"),
    {"language": "de"},
)  # fmt: skip
AIKO = Scene(
    "0000000000000003", "Aiko", "by an administrator; a phone, no email", "webhook", "sms_notice", _PHONE,
    {"email": None, "phone": _PHONE},
)  # fmt: skip
FELIX = Scene("0000000000000004", "Felix", "by self-signup", "webhook", _WELCOME, None, _SELF)
NOOR = Scene("0000000000000005", "Noor", "by an administrator", "file", _WELCOME, _address("Noor"))
MARAS_RESET = Scene(
    "0000000000000006", "Mara", "by an administrator", "file", "reset_instructions", _address("Mara"),
    {"type": "password.reset"},
)  # fmt: skip
BO = Scene("0000000000000007", "Bo", "by self-signup", "file", _WELCOME, None, _SELF)

INES = Scene(
    "evt_4mQp7sT2", "Ines", "in the dashboard", "webhook", _WELCOME, _address("Ines"),
    system="auth0", user="4mQp7sT2",
)  # fmt: skip
LIN = Scene(
    "created-66f2a1b9c0de", "Lin", "with a password", "webhook", _WELCOME, _address("Lin"),
    system="genauth", user="66f2a1b9c0de",
)  # fmt: skip
TOMAS = Scene(
    "7b1c9a54-2f0e-4f38-9d67-1f0f6c2b8e11", "Tomas", "with a password", "webhook", _WELCOME, _address("Tomas"),
    system="keycloak", user="7b1c9a54-2f0e-4f38-9d67-1f0f6c2b8e11",
)  # fmt: skip

SCENES: Sequence[Scene] = (MARA, JONAS, AIKO, FELIX, NOOR, MARAS_RESET, BO, INES, LIN, TOMAS)
BY_WEBHOOK = [scene for scene in SCENES if scene.by == "webhook"]
OF_OTHERS = [scene for scene in SCENES if scene.system != "authgear"]
FROM_FILE = [scene for scene in SCENES if scene.by == "file"]
LEFT_OUT = [scene for scene in SCENES if scene.to is None]

"""The demo's outbox: find the demo's own files in a folder, and read their messages.

A folder named ``outbox`` may hold a real service's messages. So the demo notes the names of the files that it leaves there,
and removes only files that the note of an earlier demo names.
"""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NOTE = ".usher-demo.json"
_SUFFIXES = (".eml", ".txt")


class OutboxError(Exception):
    """The demo can't write to the folder that its messages should go to."""

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(f"The outbox {path} can't be written: {cause.strerror}. Choose another: --outbox DIR")


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that a provider accepted. *kind* is the handler's name for a mail, ``SMS`` for an SMS."""

    kind: str
    to: str
    text: str
    path: Path


class DemoOutbox:
    """The folder *path*. Its messages are the files that were added after `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._foreign: frozenset[Path] = frozenset()

    def open(self) -> None:
        """Create the folder, or remove an earlier demo's messages from it.

        Raises:
            OutboxError: it can't be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in self._noted():
                (self.path / name).unlink(missing_ok=True)
            self._foreign = frozenset(self._files())
            self.close()
        except OSError as error:
            raise OutboxError(self.path, error) from None

    def close(self) -> None:
        """Note the names of the files that this demo leaves."""
        names = [path.name for path in self._files() if path not in self._foreign]
        (self.path / NOTE).write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")

    def messages(self) -> list[SentMessage]:
        """Read the messages that this demo's providers have accepted so far, by file name."""
        return [_read(path) for path in self._files() if path not in self._foreign]

    def _files(self) -> Sequence[Path]:
        return sorted(path for path in self.path.iterdir() if _is_message(path.name))

    def _noted(self) -> list[str]:
        try:
            names = json.loads((self.path / NOTE).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return []
        # A name with a folder in it was not written by a demo.
        return [name for name in names if Path(name).name == name and _is_message(name)]


def _is_message(name: str) -> bool:
    return name.endswith(_SUFFIXES) and not name.startswith(".")


def _read(path: Path) -> SentMessage:
    content = path.read_bytes()
    if path.suffix == ".txt":
        head, _, body = content.decode().partition("\n\n")
        return SentMessage("SMS", head.removeprefix("To: "), body.strip(), path)
    mail = email.message_from_bytes(content, policy=email.policy.default)
    plain = mail.get_body(("plain",))
    text = plain.get_content().strip() if plain is not None else ""
    # The file is named by the idempotency key, which begins with the handler's name.
    return SentMessage(path.name.partition("-")[0], str(mail["To"]), f"Subject: {mail['Subject']}\n\n{text}", path)

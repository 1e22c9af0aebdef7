"""The outbox: a folder in place of a provider. Mail is written as .eml, for a mail program to open, SMS as text.

A file is named by the idempotency key, so that a repeat overwrites: this provider, alone, sends nothing twice.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from usher.channels import Mail, Progress, SmsMessage
from usher.channels.mime import message, safe_key
from usher.outcome import Retry


class _Outbox:
    name = "outbox"

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)

    async def _put(self, file_name: str, content: bytes, progress: Progress) -> None:
        # Never "left": if this is cancelled half-way, writing the same file again is all there is to do.
        try:
            await asyncio.to_thread(write, self._folder / file_name, content)
        except OSError as error:
            progress.state = "back"
            raise Retry(f"the outbox can't be written: {error.strerror}") from None
        progress.state, progress.provider_id = "sent", file_name


class MailOutbox(_Outbox):
    """A `MailProvider`."""

    def prepare(self, mail: Mail) -> bytes:
        return message(mail)

    async def send(self, mail: Mail, progress: Progress) -> None:
        await self._put(f"{safe_key(mail.idempotency_key)}.eml", self.prepare(mail), progress)


class SmsOutbox(_Outbox):
    """An `Sms`."""

    async def send(self, text: SmsMessage, progress: Progress) -> None:
        await self._put(f"{safe_key(text.idempotency_key)}.txt", as_file(text), progress)


def prepare(folder: Path) -> str:
    """Make the outbox's folder, which the first message should find; why it can't be written, empty where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"USHER_OUTBOX_DIR: the folder {folder} can't be made: {error.strerror}"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"USHER_OUTBOX_DIR: the folder {folder} is not writable"


def as_file(text: SmsMessage) -> bytes:
    """An SMS as a file: the number, an empty line, the text."""
    return f"To: {text.to}\n\n{text.body}\n".encode()


def write(path: Path, content: bytes) -> None:
    """Write *path* so that a reader sees all of it or none, also after a loss of power. Makes its folder.

    Raises:
        OSError
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        _sync(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    """Have the names in *folder* on the disk: a new name is not there before."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

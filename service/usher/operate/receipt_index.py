"""The index of receipts: finds those of an event, a user, an address or a message, among all that the event log keeps.

It follows the receipts of one group. Receipts that equal ones repeat are in it as often as in the event log: `usher.receipts.ended`
makes one of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

from msgspec import msgpack

from usher.addresses import SqliteAddress
from usher.delivery import Record
from usher.eventlog.browse import Browser, ReceiptsState
from usher.eventlog.names import receipts_topic
from usher.operate.errors import OperateError
from usher.operate.progress import ReadingProgress
from usher.operate.receipt_file import IndexChanged, IndexDamaged, IndexPosition, ReceiptFile, Row
from usher.receipts import Receipt, UnreadableReceipts, failed, unpack
from usher.settings import Settings

_AT_ONCE: Final = 50_000
"""Receipts that are written in one transaction."""
_MOST_TRIES: Final = 5
_FIND: Final = {
    column: f"SELECT value FROM receipts WHERE {column} = ? AND {column} <> 0"  # noqa: S608 names of columns
    for column in ("event", "user", "name", "address", "message")
}
_encode: Final = msgpack.Encoder().encode
_decode: Final = msgpack.Decoder(Receipt).decode
_T = TypeVar("_T")


class ReceiptIndex:
    """The receipts of a group as far as they were read. All times are in Unix milliseconds."""

    def __init__(self, file: ReceiptFile) -> None:
        self._file = file

    def of_events(self, ids: Collection[str]) -> list[Receipt]:
        """Return the receipts of events with these ids, in the form that receipts keep."""
        found = (receipt for id_ in ids for receipt in self._found("event", _number(id_)))
        return [receipt for receipt in found if receipt.event_id in ids]

    def of_user(self, names: Collection[str]) -> list[Receipt]:
        """Return the receipts about a user with one of these ids or user names, in the form that receipts keep."""
        folded = {_folded(name) for name in names}
        by_id = [r for name in names for r in self._found("user", _number(name)) if r.user_id in names]
        by_name = [r for name in folded for r in self._found("name", _number(name)) if _folded(r.username) in folded]
        return by_id + by_name

    def of_address(self, hmacs: Mapping[str, bytes]) -> list[Receipt]:
        """Return the receipts of messages to an address, given as its HMAC with each key."""
        found = (receipt for hmac in hmacs.values() for receipt in self._found("address", _of_hash(hmac)))
        return [receipt for receipt in found if receipt.address == hmacs.get(receipt.key)]

    def of_message(self, provider_id: str) -> list[Receipt]:
        """Return the receipts of the message that its provider gave this id."""
        return [each for each in self._found("message", _number(provider_id)) if each.provider_id == provider_id]

    def failed(self, since: int) -> list[Receipt]:
        """Return the receipts since then that say that somebody got no message."""
        rows = self._file.rows("SELECT value FROM receipts WHERE failed AND at >= ? ORDER BY at", (since,))
        return [_decode(row[0]) for row in rows]

    def events(self, since: int) -> Iterator[list[Receipt]]:
        """Yield all receipts of each event that has one since then, by the time of its first one."""
        seen = set()
        for (event,) in self._file.stream("SELECT event FROM receipts WHERE at >= ? ORDER BY at", (since,)):
            if event not in seen:
                seen.add(event)
                yield self._found("event", event)

    def _found(self, column: str, number: int) -> list[Receipt]:
        if not number:
            return []
        return [_decode(row[0]) for row in self._file.rows(_FIND[column], (number,))]

    async def follow(self, browser: Browser, state: ReceiptsState, topic: str, progress: ReadingProgress) -> None:
        """Take in what was written since.

        Raises:
            LogUnavailable, IndexDamaged
        """
        for _ in range(_MOST_TRIES):
            with contextlib.suppress(IndexChanged):
                if not await self._followed(browser, state, topic, progress):
                    self._file.begin_again()
                    continue
                self._file.forget({part: first for part, (first, _) in state.partitions.items()})
                return
            self._file.generation = self._file.rows("SELECT number FROM generation")[0][0]
        raise OperateError(f"the index at {self._file.path} is begun again and again by others; try again")

    async def _followed(self, browser: Browser, state: ReceiptsState, topic: str, progress: ReadingProgress) -> bool:
        """Return False where the event log has others than those that were read: its receipts were restored from a copy, or cut off."""
        known = self._file.positions()
        if any(each.next > state.partitions.get(part, (0, 0))[1] for part, each in known.items()):
            return False
        taking = _Taking(self._file, known, topic, progress)
        async for records in browser.receipts({part: each.last for part, each in known.items()}):
            for record in records:
                if not taking.take(record):
                    return False
        taking.write()
        taking.report()
        return True


class _Taking:
    """Takes records into an index, many at a time."""

    def __init__(
        self, file: ReceiptFile, known: Mapping[int, IndexPosition], topic: str, progress: ReadingProgress
    ) -> None:
        self._file, self._known, self._topic, self._progress = file, known, topic, progress
        self._rows: list[Row] = []
        self._positions: dict[int, IndexPosition] = {}
        self._count = 0
        self._odd: list[str] = []

    def take(self, record: Record) -> bool:
        """Take one record. False: it is not the one that was read at this place before."""
        part, offset, value = record.partition, record.offset, record.value or b""
        known = self._known.get(part)
        if known is not None and offset < known.next:
            return offset != known.last or zlib.crc32(value) == known.crc
        try:
            receipts = unpack(value)
        except UnreadableReceipts as error:
            self._odd.append(f"{part}@{offset}: {error}")
            receipts = []
        self._rows += [_row(part, offset, n, receipt) for n, receipt in enumerate(receipts)]
        self._positions[part] = IndexPosition(offset + 1, offset, zlib.crc32(value))
        self._count += len(receipts)
        if len(self._rows) >= _AT_ONCE:
            self.write()
        return True

    def write(self) -> None:
        if self._positions:
            self._file.add(self._rows, self._positions)
            self._progress.read("receipts", self._count)
        self._rows, self._positions = [], {}

    def report(self) -> None:
        """Note the records that are none of Usher's."""
        if self._odd:
            more = f" (and {len(self._odd) - 1} more)" if len(self._odd) > 1 else ""
            self._progress.note(f"a record of {self._topic} is passed over, {self._odd[0]}{more}")


async def ask(
    settings: Settings, browser: Browser, progress: ReadingProgress, question: Callable[[ReceiptIndex], Awaitable[_T]]
) -> _T:
    """Bring the index up to date, ask it, and return the answer. Where the index is damaged it is made anew, and asked again.

    Raises:
        LogUnavailable, OperateError
    """
    for last in (False,) * _MOST_TRIES + (True,):
        try:
            async with _open(settings, browser, progress) as index:
                return await question(index)
        except IndexDamaged as error:
            if last:
                raise OperateError(f"the index of receipts in {settings.cache_dir} can't be used: {error}") from error
            progress.note("the index of receipts was damaged or deleted, and is made anew")
        except sqlite3.Error as error:
            raise OperateError(f"the index of receipts in {settings.cache_dir} can't be used: {error}") from error
    raise AssertionError


@contextlib.asynccontextmanager
async def _open(settings: Settings, browser: Browser, progress: ReadingProgress) -> AsyncIterator[ReceiptIndex]:
    state, topic = await browser.receipts_state(), receipts_topic(settings.group)
    file = ReceiptFile(_path(settings, "" if state is None else state.topic_id))
    try:
        index = ReceiptIndex(file)
        if file.trouble:
            progress.note(f"{file.trouble}; it is made in memory")
        if state is not None:
            try:
                await index.follow(browser, state, topic, progress)
            except sqlite3.Error as error:
                file.leave(error)
                progress.note(f"{file.trouble}; it is made in memory")
                await index.follow(browser, state, topic, progress)
        yield index
    finally:
        file.close()


def _path(settings: Settings, topic_id: str) -> Path:
    """Return the place of the index. Those of earlier topics of the group are removed."""
    log = settings.event_log
    place = str(log.path.resolve()) if isinstance(log, SqliteAddress) else str(log)
    name = f"receipts-{_hex(place, settings.group)}-"
    path = settings.cache_dir / f"{name}{_hex(topic_id)}.sqlite"
    with contextlib.suppress(OSError):
        for old in settings.cache_dir.glob(f"{name}*"):
            if not old.name.startswith(path.stem):
                old.unlink()
    return path


def _hex(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _row(part: int, offset: int, n: int, receipt: Receipt) -> Row:
    return (
        part, offset, n, receipt.at, failed(receipt), _number(receipt.event_id) or 1, _number(receipt.user_id),
        _number(_folded(receipt.username)), _of_hash(receipt.address), _number(receipt.provider_id), _encode(receipt),
    )  # fmt: skip


def _number(text: str) -> int:
    """Return what stands for *text* in the index; 0 for none."""
    if not text:
        return 0
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), signed=True)


def _of_hash(hmac: bytes) -> int:
    return int.from_bytes(hmac[:8], signed=True)


def _folded(name: str) -> str:
    """Return a user name as it is compared; an HMAC in its place stays as it is."""
    return name if name.startswith("hmac:") else name.casefold()

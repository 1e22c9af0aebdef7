"""How aiokafka unpacks what it fetches. Hides that one record that can't be read would stop its partition for ever.

A batch whose checksum is right has the bytes that its producer wrote. What can't be read of it stays so: a header's name that
is no UTF-8, a length that makes no sense, a stream that can't be unpacked. Such a record becomes an `Unreadable` at its place,
and reading goes on. A batch whose checksum is wrong was damaged on its way or on a disk: that still raises.

Unpacking has a bound: a batch of some kilobytes can unpack to gigabytes. A batch that exceeds it is one `Unreadable`.

`install` puts this where aiokafka's consumers make their batches: `aiokafka.consumer.fetcher.MemoryRecords`.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import cramjam
from aiokafka.codec import snappy_decode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint
from crc32c import crc32c

from usher.delivery import Unreadable

MOST_UNPACKED: Final = 64 * 1024 * 1024
"""How many bytes a batch may unpack to."""
_FIRST_GUESS: Final = 32
"""How many times its size a batch unpacks to at most, in most cases. More is tried where it does not fit."""
_LEAST: Final = 16_384

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_INT, _CRC = struct.Struct(">i"), struct.Struct(">I")
_LENGTH_AT, _MAGIC_AT, _LEGACY_ATTRIBUTES_AT, _CRC_AT, _ATTRIBUTES_AT = 8, 16, 17, 17, 21
_ATTRIBUTES, _COUNT = 5, 12
_OVERHEAD: Final = 12
_CODEC: Final = 0x07
_SNAPPY: Final = 2
_XERIAL: Final = b"\x82SNAPPY\x00"
_INTO: Final[Mapping[int, Callable[[Any, Any], int]]] = {
    1: cramjam.gzip.decompress_into,
    3: cramjam.lz4.decompress_into,
    4: cramjam.zstd.decompress_into,
}
_BROKEN: Final = (
    CorruptRecordException,
    ValueError,
    IndexError,
    struct.error,
    cramjam.DecompressionError,
    OverflowError,
)
"""What a parser or a decompressor raises about bytes that it can't read."""

Sift = Callable[[Iterable[Any], int], Iterator[Any]]
"""Yields some of the records of a batch, which begins at an offset."""


class Batches:
    """The batches of one fetch, as the fetcher of aiokafka reads them: `MemoryRecords`, whose batches raise nothing of one record."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._inner = MemoryRecords(data)
        self._at = 0
        self.sift: Sift | None = None
        """What its batches leave out, if anything."""

    def size_in_bytes(self) -> int:
        return self._inner.size_in_bytes()

    def has_next(self) -> bool:
        return self._inner.has_next()

    def next_batch(self) -> Any:
        batch: Any = self._inner.next_batch()
        (length,) = _INT.unpack_from(self._data, self._at + _LENGTH_AT)
        end = self._at + _OVERHEAD + length
        raw, self._at = self._data[self._at : end], end
        return batch if batch is None or batch.is_control_batch else _Batch(batch, raw, self.sift)


@dataclass(frozen=True, slots=True)
class _Stub:
    """A record that could not be read."""

    offset: int
    timestamp: int
    value: Unreadable
    timestamp_type: int = 0
    key: None = None
    headers: tuple[()] = ()
    checksum: None = None


class _Batch:
    """One batch. What the fetcher asks of it is answered by aiokafka's own, but for its checksum and its records."""

    __slots__ = (
        "_inner",
        "_raw",
        "_sift",
        "base_offset",
        "is_control_batch",
        "is_transactional",
        "next_offset",
        "producer_id",
    )

    def __init__(self, inner: Any, raw: memoryview, sift: Sift | None) -> None:
        self._inner = inner
        self._raw = raw
        self._sift = sift
        self.base_offset = getattr(inner, "base_offset", -1)  # the old formats do not say it
        self.next_offset = inner.next_offset
        self.is_control_batch = False
        self.is_transactional = inner.is_transactional
        self.producer_id = inner.producer_id

    def validate_crc(self) -> bool:
        """Return whether the checksum is right. The instruction of the processor finds it ten times as fast as aiokafka's table."""
        if self._raw[_MAGIC_AT] < 2:
            return bool(self._inner.validate_crc())
        return bool(crc32c(self._raw[_ATTRIBUTES_AT:]) == _CRC.unpack_from(self._raw, _CRC_AT)[0])

    def __iter__(self) -> Iterator[Any]:
        return self._records() if self._raw[_MAGIC_AT] >= 2 else self._sifted(self._legacy_records())

    def _sifted(self, records: Iterable[Any]) -> Iterator[Any]:
        return iter(records) if self._sift is None else self._sift(records, self.base_offset)

    def _records(self) -> Iterator[Any]:
        batch, packed = self._inner, self._raw[_HEADER.size :]
        codec = self._raw[_ATTRIBUTES_AT + 1] & _CODEC
        if codec in _INTO or codec == _SNAPPY:
            try:
                packed = memoryview(_unpacked(codec, packed))
            except _BROKEN as error:
                yield self._lost(f"the batch of offsets {self._range()} can't be unpacked: {error}")
                return
            head = self._head
            batch = DefaultRecordBatch(_with(head, head[_COUNT], packed))
        try:
            yield from self._sifted(batch)
        except UnsupportedCodecError:
            raise  # a newer Usher, or another library, could read it
        except _BROKEN:
            yield from self._sifted(
                self._one_by_one(self._head, packed)
            )  # the fetcher passes over those that it has had

    @property
    def _head(self) -> tuple[int, ...]:
        return _HEADER.unpack_from(self._raw)

    def _one_by_one(self, head: tuple[int, ...], packed: memoryview) -> Iterator[Any]:
        """Read each record for itself. Its length says where the next one begins, so that one can be passed over."""
        at, offset = 0, head[0] - 1
        data = bytearray(packed)
        for _ in range(head[_COUNT]):
            try:
                start, (length, inside) = at, decode_varint(data, at)
                at = inside + length
                if length <= 0 or at > len(data):
                    raise ValueError(f"a record has a length of {length} bytes")
            except _BROKEN as error:
                yield self._lost(
                    f"the records from offset {offset + 1} to {self._inner.next_offset - 1} can't be read: {error}"
                )
                return
            offset, timestamp = _place(data, inside, at, head, offset)
            try:
                record = next(iter(DefaultRecordBatch(_with(head, 1, packed[start:at]))))
            except (*_BROKEN, StopIteration) as error:
                yield _Stub(offset, timestamp, Unreadable(f"it can't be read: {error}"))
            else:
                yield record

    def _legacy_records(self) -> Iterator[Any]:
        """Read a batch of the formats before Kafka 0.11, which aiokafka unpacks by itself: only its size is looked at before."""
        try:
            if codec := self._raw[_LEGACY_ATTRIBUTES_AT] & _CODEC:
                _unpacked(codec, _legacy_value(self._raw))
            yield from self._inner
        except UnsupportedCodecError:
            raise
        except _BROKEN as error:
            yield self._lost(f"the batch can't be read: {error}")

    def _lost(self, why: str) -> _Stub:
        """Return one stub for all that is left of the batch. It has the last place, which no reader of a part has passed."""
        return _Stub(self._inner.next_offset - 1, max(0, getattr(self._inner, "max_timestamp", 0)), Unreadable(why))

    def _range(self) -> str:
        first, last = self._inner.base_offset, self._inner.next_offset - 1
        return f"{first}" if first == last else f"{first} to {last}"


def _unpacked(codec: int, packed: memoryview) -> bytes:
    """Unpack *packed*, to `MOST_UNPACKED` bytes at most.

    Raises:
        ValueError: it is more.
        cramjam.DecompressionError, struct.error: it is no such stream.
    """
    if codec == _SNAPPY:
        if _snappy_size(packed) > MOST_UNPACKED:
            raise _too_large()
        return snappy_decode(packed.tobytes())
    unpack_into = _INTO[codec]
    guess = min(MOST_UNPACKED, max(_LEAST, _FIRST_GUESS * len(packed)))
    if guess < MOST_UNPACKED:
        room = bytearray(guess)
        try:
            return bytes(memoryview(room)[: unpack_into(packed, room)])
        except cramjam.DecompressionError as error:
            if not _was_full(error):
                raise
    with mmap.mmap(-1, MOST_UNPACKED) as most:  # its pages exist once they are written: most of them never are
        try:
            return most[: unpack_into(packed, most)]
        except cramjam.DecompressionError as error:
            if _was_full(error):
                raise _too_large() from None
            raise


def _too_large() -> ValueError:
    return ValueError(f"it is more than {MOST_UNPACKED // 1024**2} MiB")


def _was_full(error: Exception) -> bool:
    return "whole buffer" in str(error)


def _snappy_size(packed: memoryview) -> int:
    """Return how many bytes *packed* unpacks to: snappy says it in front, the framing of Java in front of each block."""
    if bytes(packed[: len(_XERIAL)]) != _XERIAL:
        return int(cramjam.snappy.decompress_raw_len(packed))
    size, at = 0, 16
    while at < len(packed):
        (length,) = struct.unpack_from(">i", packed, at)
        if length <= 0:
            raise ValueError(f"a block has a length of {length} bytes")
        size += cramjam.snappy.decompress_raw_len(packed[at + 4 : at + 4 + length])
        at += 4 + length
    return size


def _with(head: tuple[int, ...], count: int, records: memoryview) -> bytes:
    """Return a batch that is not packed, with *count* *records*, and otherwise the *head* of another one."""
    values = list(head)
    values[_ATTRIBUTES] &= ~_CODEC
    values[_COUNT] = count
    return _HEADER.pack(*values) + records


def _place(data: bytearray, at: int, end: int, head: tuple[int, ...], before: int) -> tuple[int, int]:
    """Return the offset and the timestamp of the record at *at*, or where they can't be read: the next offset, the batch's time."""
    base, first_timestamp, latest = head[0], head[7], head[8]
    try:
        _, at = decode_varint(data, at)
        later, at = decode_varint(data, at)
        delta, at = decode_varint(data, at)
    except _BROKEN:
        at = end + 1
    if at > end or not before < base + delta <= base + head[6]:
        return before + 1, max(0, latest)
    return base + delta, max(0, first_timestamp + later)


def _legacy_value(raw: memoryview) -> memoryview:
    """Return the value of a message of the formats 0 and 1: packed messages are the value of one."""
    at = 18 if raw[_MAGIC_AT] == 0 else 26
    (key,) = struct.unpack_from(">i", raw, at)
    at += 4 + max(0, key)
    (length,) = struct.unpack_from(">i", raw, at)
    if length < 0:
        raise ValueError("it has no value")
    return raw[at + 4 : at + 4 + length]


def install() -> None:
    """Let all consumers of this process read their batches so."""
    fetcher.MemoryRecords = Batches  # type: ignore[attr-defined]  # it is imported there, and used by this name

"""What a consumer of Kafka makes of batches: of good ones, of ones that a producer wrote badly, and of damaged ones."""

from __future__ import annotations

import gc
import struct
import weakref
from collections.abc import Sequence
from typing import Any, Literal

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from usher.delivery import Unreadable
from usher.eventlog.kafka import unpacking
from usher.eventlog.kafka.sieve import Sieve, install
from usher.eventlog.kafka.unpacking import MOST_UNPACKED

pytestmark = pytest.mark.heavy

PARTITION = TopicPartition("identity.events", 0)
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
SMALL = 4 * 1024 * 1024
BOUNDS = pytest.mark.parametrize(
    ("codec", "most"), [(GZIP, SMALL), (SNAPPY, SMALL), (LZ4, SMALL), (ZSTD, SMALL), (ZSTD, MOST_UNPACKED)]
)
"""Each codec with a smaller bound, which is packed sooner; one with the true one."""

install()


def batch(*values: bytes, codec: int = NONE, base: int = 0, headers: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """A batch as a producer makes it, and the broker gives it its first offset."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=10 * MOST_UNPACKED,
    )  # fmt: skip
    for offset, value in enumerate(values):
        builder.append(offset, timestamp=1_000 + offset, key=b"k", value=value, headers=list(headers))
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, base)
    return bytes(built)


def with_bytes(data: bytes, old: bytes, new: bytes) -> bytes:
    """A batch in which other bytes were written, and whose checksum is right."""
    changed = bytearray(data.replace(old, new))
    assert changed != data
    struct.pack_into(">I", changed, 17, calc_crc32c(bytes(changed[21:])))
    return bytes(changed)


def read(data: bytes, offset: int = 0) -> list[Any]:
    """The records that a consumer gets from one fetch, which began at *offset*."""
    records = fetcher.MemoryRecords(data)  # type: ignore[attr-defined]  # the name that the fetcher uses
    return list(fetcher.PartitionRecords(PARTITION, records, [], offset, None, None, True, fetcher.READ_COMMITTED))


def sifted(data: bytes, offset: int = 0, room: int = 100) -> list[tuple[int, int | None]]:
    """What a consumer gets of one fetch that leaves out all values with an ``x``: how many it has left out, and the next offset."""
    sieve = Sieve(lambda _topic: lambda value, _headers: b"x" not in (value or b""))
    sieve.room = room
    records = fetcher.MemoryRecords(data)  # type: ignore[attr-defined]  # as above
    pairs = fetcher.PartitionRecords(PARTITION, records, [], offset, None, sieve, True, fetcher.READ_COMMITTED)
    return [(left_out, None if record is None else record.offset) for left_out, record in pairs]


def values(records: Sequence[Any]) -> list[tuple[int, bytes | str]]:
    """(offset, value) of each; of one that can't be read, (offset, why)."""
    return [(r.offset, r.value.reason if isinstance(r.value, Unreadable) else r.value) for r in records]


@pytest.mark.parametrize("codec", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
def test_good_batches_are_read_as_they_were_written(codec: int) -> None:
    """Packed or not, with headers and times, also from the middle of a batch on."""
    data = batch(b"one", b"two" * 50_000, codec=codec, headers=[("ä", b"1")]) + batch(b"three", codec=codec, base=2)

    assert values(read(data)) == [(0, b"one"), (1, b"two" * 50_000), (2, b"three")]
    assert [(r.offset, r.timestamp, r.key, r.headers) for r in read(data, 1)] == [
        (1, 1_001, b"k", (("ä", b"1"),)),
        (2, 1_000, b"k", ()),
    ]


@pytest.mark.parametrize("codec", [NONE, ZSTD])
def test_a_header_name_that_is_no_utf8_costs_its_record_alone(codec: int) -> None:
    """The record keeps its place and time and says why it can't be read; those before and after it are read."""
    data = bytearray(batch(b"one", b"two", b"three", headers=[("café", b"1")]))
    second = data.index("é".encode(), data.index(b"two"))
    data[second : second + 2] = b"\xff\xfe"
    if codec:
        data[61:] = bytes(cramjam.zstd.compress(data[61:]))
        struct.pack_into(">h", data, 21, ZSTD)
        struct.pack_into(">i", data, 8, len(data) - 12)

    records = read(_sealed(data) + batch(b"four", base=3))

    assert [(o, v) for o, v in values(records) if isinstance(v, bytes)] == [(0, b"one"), (2, b"three"), (3, b"four")]
    assert "utf-8" in records[1].value.reason
    assert (records[1].timestamp, records[1].value, records[1].headers) == (1_001, b"", ())


def _sealed(data: bytearray) -> bytes:
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return bytes(data)


def test_a_record_without_a_meaning_costs_its_record_alone() -> None:
    """A number of headers below zero: its own length says where the next record begins."""
    good = batch(b"one", b"two")
    data = with_bytes(good, b"\x06one\x00", b"\x06one\x01")

    records = read(data)

    assert values(records)[1] == (1, b"two")
    assert isinstance(records[0].value, Unreadable)


def test_a_length_without_a_meaning_costs_the_rest_of_its_batch() -> None:
    """Where the next record begins is not known then: one stub names the offsets, and the next batch is read."""
    good = batch(b"one", b"two", b"three")
    second = good.index(b"two") - 7
    data = _sealed(bytearray(good[:second] + b"\x7f" + good[second + 1 :]))

    records = read(data + batch(b"four", base=3))

    assert values(records)[0] == (0, b"one")
    assert values(records)[-1] == (3, b"four")
    assert [r.offset for r in records] == [0, 2, 3]
    assert "from offset 1 to 2" in records[1].value.reason


@BOUNDS
def test_what_unpacks_to_too_much_is_one_stub(codec: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some kilobytes that become more than the bound: nothing of them is kept, and the next batch is read."""
    monkeypatch.setattr(unpacking, "MOST_UNPACKED", most)
    data = batch(b"small", bytes(most), codec=codec)
    assert len(data) < most / 10

    records = read(data + batch(b"after", base=2), offset=1)

    assert values(records) == [
        (1, f"the batch of offsets 0 to 1 can't be unpacked: it is more than {most // 1024**2} MiB"),
        (2, b"after"),
    ]


@BOUNDS
def test_what_is_just_within_the_bound_is_read(codec: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is far more than its packed bytes let expect."""
    monkeypatch.setattr(unpacking, "MOST_UNPACKED", most)
    value = bytes(most - 100)

    assert values(read(batch(value, codec=codec))) == [(0, value)]


@CODECS
def test_bytes_that_cannot_be_unpacked_are_one_stub(codec: int) -> None:
    """Their checksum is right: so their producer wrote them like that, and no waiting helps."""
    good = bytearray(batch(b"one", b"two", codec=codec))
    good[61:] = b"\xff" * len(good[61:])

    [stub, after] = read(_sealed(good) + batch(b"after", base=2))

    assert (stub.offset, after.value) == (1, b"after")
    assert "0 to 1 can't be unpacked" in stub.value.reason


def test_a_wrong_checksum_still_stops() -> None:
    """The bytes are not those that were written: nothing is passed over."""
    damaged = batch(b"one").replace(b"one", b"eno")

    with pytest.raises(CorruptRecordException):
        read(damaged)


def test_an_unknown_codec_still_stops() -> None:
    """A newer version could read it."""
    unknown = bytearray(batch(b"one"))
    struct.pack_into(">h", unknown, 21, 6)

    with pytest.raises(UnsupportedCodecError):
        read(_sealed(unknown))


@pytest.mark.parametrize("magic", [0, 1])
def test_old_formats_are_read_and_bounded(magic: Literal[0, 1], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a broker of before 0.11 stored."""
    monkeypatch.setattr(unpacking, "MOST_UNPACKED", SMALL)

    def old(value: bytes) -> bytes:
        builder = LegacyRecordBatchBuilder(magic, GZIP, 10 * MOST_UNPACKED)
        builder.append(0, 1_000, b"k", value)
        return bytes(builder.build())

    assert values(read(old(b"one"))) == [(0, b"one")]
    [stub] = read(old(bytes(SMALL)))
    assert "more than 4 MiB" in stub.value.reason


LEFT_OUT = batch(b"x", b"x", b"one", b"x", b"two", b"x", b"x")


@pytest.mark.parametrize("codec", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
def test_what_is_left_out_is_counted_with_the_record_after_it(codec: int) -> None:
    """And with none at the end of the fetch. Records before the offset that was asked for do not count."""
    first, second = batch(b"x", b"one", b"x", codec=codec), batch(b"x", b"two", b"x", codec=codec, base=3)

    assert sifted(first + second) == [(1, 1), (2, 4), (1, None)]
    assert sifted(first + second, 2) == [(2, 4), (1, None)]
    assert sifted(second, 5) == [(1, None)]


def test_no_more_is_left_out_than_there_is_room_for() -> None:
    """After that every record is let through."""
    assert sifted(LEFT_OUT, room=3) == [(2, 2), (1, 4), (0, 5), (0, 6)]
    assert sifted(LEFT_OUT, room=0) == [(0, offset) for offset in range(7)]


def test_a_record_that_cannot_be_read_among_those_left_out_changes_no_count() -> None:
    """The batch is read again, record by record: what was counted is not counted twice."""
    data = _sealed(bytearray(LEFT_OUT.replace(b"\x06two\x00", b"\x06two\x01")))

    assert sifted(data) == [(2, 2), (1, 4), (2, None)]
    assert sifted(data + batch(b"x", base=7)) == [(2, 2), (1, 4), (3, None)]
    assert sifted(batch(b"x", b"x") + data.replace(struct.pack(">q", 0), struct.pack(">q", 2), 1)) == [
        (4, 4),
        (1, 6),
        (2, None),
    ]


def test_what_was_fetched_is_gone_once_it_is_read() -> None:
    """No cycle keeps it until the garbage collector comes: fetches are large."""
    sieve = Sieve(lambda _topic: lambda _value, _headers: True)
    records = fetcher.MemoryRecords(LEFT_OUT)  # type: ignore[attr-defined]  # as above
    pairs = fetcher.PartitionRecords(PARTITION, records, [], 0, None, sieve, True, fetcher.READ_COMMITTED)
    fetched = weakref.ref(records)
    gc.disable()
    try:
        assert len(list(pairs)) == 7
        del records, pairs
        assert fetched() is None
    finally:
        gc.enable()

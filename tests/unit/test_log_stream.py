"""The stream of log lines: it never waits and never raises, keeps order, and counts what is lost."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from usher.log_stream import LogStream


def notice(count: int) -> str:
    return f"lost {count}"


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The reading end of a pipe, not blocking, and its writing end."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with os.fdopen(writer, "w") as stream:
        yield reader, stream
    os.close(reader)


def read(reader: int) -> bytes:
    found = b""
    try:
        while part := os.read(reader, 65536):
            found += part
    except BlockingIOError:
        pass
    return found


def write(lines: LogStream, *texts: str) -> None:
    for text in texts:
        lines.write(text + "\n")
        lines.flush()


def test_a_line_goes_out_at_once(pipe: tuple[int, TextIO]) -> None:
    """Where the stream takes lines, each is there when `flush` returns."""
    reader, stream = pipe
    write(LogStream(stream, notice), "one", "two")
    assert read(reader) == b"one\ntwo\n"


def test_a_reader_that_reads_nothing_holds_up_nobody(pipe: tuple[int, TextIO]) -> None:
    """The pipe is full: lines are kept, and go out in order once it is read again."""
    reader, stream = pipe
    lines = LogStream(stream, notice)
    texts = [f"{number} {'x' * 1000}" for number in range(500)]

    write(lines, *texts)
    found = read(reader)
    while len(found) < sum(len(text) + 1 for text in texts):
        lines.flush()
        found += read(reader)

    assert found.decode().splitlines() == texts


def test_what_there_is_no_room_for_is_counted_where_it_is_missing(pipe: tuple[int, TextIO]) -> None:
    """Lines beyond the room are lost; the next one that is kept comes after a line that says how many."""
    reader, stream = pipe
    lost: list[None] = []
    lines = LogStream(stream, notice, room=100_000)
    lines.when_lost = lambda: lost.append(None)
    write(lines, *(f"{number} {'x' * 1000}" for number in range(500)))

    found = read(reader)
    for _ in range(100):
        lines.flush()
        found += read(reader)
    write(lines, "again")
    found += read(reader)

    *kept, said, last = found.decode().splitlines()
    assert (said, last) == (f"lost {len(lost)}", "again")
    assert len(kept) + len(lost) == 500
    assert [line.split()[0] for line in kept] == [str(number) for number in range(len(kept))]


def test_a_reader_that_has_gone_raises_nothing() -> None:
    """A broken pipe is no concern of the code that logs."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        os.close(reader)
        lines = LogStream(stream, notice, room=10)
        write(lines, "one", "two", "three", "four")
        lines.flush(0.05)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_raises_nothing() -> None:
    """A disk without space is no concern of the code that logs."""
    with Path("/dev/full").open("w") as stream:
        write(LogStream(stream, notice), "one", "two")


def test_a_closed_stream_and_none_raise_nothing() -> None:
    """Standard error may be closed before the start or while the service runs."""
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        lines = LogStream(stream, notice)
        write(lines, "one")
        assert lines.isatty() is False


def test_any_text_can_be_written(pipe: tuple[int, TextIO]) -> None:
    """A lone surrogate, which UTF-8 can't carry, is written as its escape."""
    reader, stream = pipe
    write(LogStream(stream, notice), "id \ud800 ü")
    assert read(reader) == "id \\ud800 ü\n".encode()

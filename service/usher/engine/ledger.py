"""The Ledger: what of a claim is done. The Mark: how a commit passes that to the next owner, in its metadata.

A commit is an offset and a Mark. The offset is the frontier: the lowest record with something unsettled. The Mark says
*everything in [next, seen) is done except these*, with the handlers that are already done on each. It lists what is
undone, so filtered records and gaps cost nothing, and its size has the bound of what may be in flight.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from usher.eventlog.port import Position

MARK_LIMIT = 4096
"""How many characters a Kafka broker takes as commit metadata (``offset.metadata.max.bytes``)."""

NOBODY = bytes(9)
"""There is no suspect."""

_GROUP = bytes(7) + b"\xff"
"""The end of a group in a Mark. No single suspect ends so."""

_VERSION = "u1."
_HASH_BYTES = 4
_COINCIDENCES = 3
_BEYOND = 1 << 62
"""No offset is so large: a Mark that has one is somebody else's."""
_PATIENCE = 2
"""So many starts in a row may end badly. After them deliveries run one at a time, to find the one that ends the process."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is done after a frontier.

    *base* is the offset that it was committed with. A Mark of another base is not used: that would lose events. *undone*
    maps an offset to a bit mask of the handlers that are done on it, in the order of their sorted names. *handlers* is a
    hash of those names; where it differs, the bits say nothing. *starts* counts the workers that began here since one
    stopped in good order or lived for a while. *suspect* is the `digest` of the delivery that ran alone when this was
    written, if one did, and in its last byte how often in a row it did; or the `group_of` those that ran beside each other.
    """

    base: int
    seen: int
    undone: Mapping[int, int] = field(default_factory=dict)
    handlers: bytes = bytes(_HASH_BYTES)
    starts: int = 0
    suspect: bytes = NOBODY

    def encode(self, limit: int = MARK_LIMIT) -> str:
        """Write it as at most *limit* characters. What does not fit is left out from the end: it will be read again, never lost."""
        offsets = sorted(self.undone)
        seen = self.seen
        while True:
            text = self._encode(offsets, seen)
            if len(text) <= limit:
                return text
            keep = len(offsets) * (limit - 64) // len(text)
            seen, offsets = offsets[keep], offsets[:keep]

    def _encode(self, offsets: Sequence[int], seen: int) -> str:
        out = bytearray(self.handlers + self.suspect)
        for number in (self.base, seen - self.base, self.starts):
            _put(out, number)
        previous = self.base
        for offset in offsets:
            done = self.undone[offset]
            _put(out, (offset - previous) << 1 | (done > 0))
            if done:
                _put(out, done)
            previous = offset
        return _VERSION + base64.urlsafe_b64encode(out).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, base: int) -> Mark | None:
        """Read the Mark in the metadata of a commit. None where there is none, it is of another program, or of another base."""
        if not text.startswith(_VERSION):
            return None
        body = text.removeprefix(_VERSION)
        try:
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            numbers = list(_numbers(raw[_HASH_BYTES + len(NOBODY) :]))
            found, width, starts = numbers[:3]
        except (binascii.Error, ValueError):
            return None
        if found != base:
            return None
        undone: dict[int, int] = {}
        offset, rest = base, iter(numbers[3:])
        for number in rest:
            offset += number >> 1
            undone[offset] = next(rest, 0) if number & 1 else 0
        if max(width, starts, offset) >= _BEYOND:
            return None
        suspect = raw[_HASH_BYTES : _HASH_BYTES + len(NOBODY)]
        return cls(base, base + width, undone, raw[:_HASH_BYTES], starts, suspect)


def handlers_hash(names: Iterable[str]) -> bytes:
    """Return the hash that a Mark has of the set of handlers that its bits are about."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).digest()[:_HASH_BYTES]


def digest(key: str) -> bytes:
    """Return the hash that a Mark has of one delivery."""
    return hashlib.sha256(key.encode()).digest()[: len(NOBODY) - 1]


def group_of(key: str) -> bytes:
    """Return what a Mark has of one in 64 deliveries, of which *key* is one."""
    return bytes([digest(key)[0] & 0b11_1111]) + _GROUP


_ROOM = MARK_LIMIT * 3 // 4 - 64
"""How many bytes the offsets in a Mark may take, before base64 and without its head."""


@dataclass(slots=True)
class _Pending:
    left: set[str]
    done: int
    several: bool


class Ledger:
    """How far one claim was read, and what of it is not settled yet.

    ``position`` is the next offset to read; the intake moves it. A Mark that was loaded is valid until reading has passed
    it. What is left of it is carried into every commit.
    """

    def __init__(self, start: int, mark: str, handlers: Collection[str]) -> None:
        self.position = start
        self._names = sorted(handlers)
        self._bit = {name: 1 << index for index, name in enumerate(self._names)}
        self._hash = handlers_hash(self._names)
        self._pending: dict[int, _Pending | str] = {}
        """What is unsettled on an offset. Most have one handler, with nothing done before: then its name is enough."""
        self._several = 0
        self._bits_size = -(-len(self._names) // 7)
        loaded = Mark.decode(mark, start) or Mark(start, start)
        self._seen = loaded.seen
        self._undone_before = dict(loaded.undone)
        self._bits_valid = loaded.handlers == self._hash
        self._starts = loaded.starts + 1
        self.careful = loaded.starts >= _PATIENCE
        """Whether worker after worker has ended badly here: then deliveries run one at a time."""
        self._doubt = loaded.seen
        """What lies before it may have run when a worker ended. Nothing after it may begin before a commit says that it was read."""
        self._covered = start
        self._accused = loaded.suspect if self.careful else NOBODY
        self._suspect = NOBODY

    def __len__(self) -> int:
        """Return how many offsets have something unsettled."""
        return len(self._pending)

    @property
    def room(self) -> int:
        """How many more records may be read so that a Mark surely has room for all of them, whichever are undone then."""
        first = next(iter(self._pending), self.position)
        carried = len(self._undone_before) if self.position < self._seen else 0
        known = len(self._pending) + carried
        # A gap below 64 takes a byte, one below 8192 two, and so on. The distance limits how many wide gaps there can be.
        distance = max(self.position, self._seen) - min(first, self.position)
        gaps = known + sum(min(known, distance >> width) for width in (6, 13, 20))
        bits = (self._several + carried) * self._bits_size
        return (_ROOM - gaps - bits) // (2 + (self._bits_size if len(self._names) > 1 else 0))

    def already_done(self, offset: int) -> bool:
        """Return whether the loaded Mark says that nothing is left to do for this offset."""
        return offset < self._seen and offset not in self._undone_before

    def already_done_by(self, offset: int) -> frozenset[str]:
        """Return the handlers that the loaded Mark says are done on an offset that is not done as a whole."""
        done = self._undone_before.get(offset, 0) if self._bits_valid else 0
        return frozenset(name for name, bit in self._bit.items() if done & bit) if done else frozenset()

    def begin(self, offset: int, handlers: Iterable[str], done: Collection[str] = ()) -> None:
        """Begin an offset: *handlers* are to run on its record (*done* have run before). Must be called in the order of offsets."""
        left = set(handlers)
        if len(left) == 1 and not done:
            (self._pending[offset],) = left
            return
        bits = sum(self._bit.get(name, 0) for name in done) if done else 0
        several = bits > 0 or len(left) > 1
        self._several += several
        self._pending[offset] = _Pending(left, bits, several)

    def settle(self, offset: int, handler: str) -> None:
        """Settle an offset for *handler*: it is done, or handed over to a topic that has acknowledged it."""
        pending = self._pending.get(offset)
        if pending == handler:
            del self._pending[offset]
        if not isinstance(pending, _Pending) or handler not in pending.left:
            return
        pending.left.discard(handler)
        pending.done |= self._bit.get(handler, 0)
        if not pending.left:
            del self._pending[offset]
            self._several -= pending.several

    def waits_for(self, offset: int, handler: str) -> bool:
        """Return whether this delivery was read and is not settled."""
        pending = self._pending.get(offset)
        return handler in pending.left if isinstance(pending, _Pending) else handler == pending

    def passed(self, offset: int) -> bool:
        """Return whether everything at *offset* was begun: it was read here, or it is done according to the Mark."""
        return offset < self.position or self.already_done(offset)

    def snapshot(self, *, orderly: bool = False) -> Position:
        """Return what may be committed now. *orderly*: the worker stops on purpose, so its start does not count."""
        position = self.position
        undone = {o: pending.done if isinstance(pending, _Pending) else 0 for o, pending in self._pending.items()}
        if position < self._seen:
            carried = {o: done if self._bits_valid else 0 for o, done in self._undone_before.items() if o >= position}
            undone |= carried
        seen = max(position, self._seen)
        base = min(undone, default=seen)
        starts = 0 if orderly else self._starts
        return Position(base, Mark(base, seen, undone, self._hash, starts, self._suspect).encode())

    def in_doubt(self, offset: int) -> bool:
        """Return whether what is at *offset* may have run when a worker ended here.

        What a careful worker reads beyond what was read before it begins only when a commit says that it was read (`covered`). If one
        of that ends the worker, it lies before the next worker's doubt, and runs alone there.
        """
        return offset < self._doubt

    @property
    def doubtful(self) -> bool:
        """Whether anything is unsettled that may have run when a worker ended here."""
        return self.careful and min(next(iter(self._pending), self.position), self.position) < self._doubt

    def covered(self, offset: int) -> bool:
        """Return whether a commit says that *offset* was read."""
        return offset < self._covered

    def committed(self, position: Position) -> None:
        """*position*, a `snapshot`, is committed."""
        mark = Mark.decode(position.mark, position.next)
        self._covered = max(self._covered, mark.seen if mark else 0)

    def condemned(self, key: str) -> bool:
        """Return whether a delivery must not run any more: three times in a row it ran alone when the worker ended.

        Twice may be a coincidence, where machines die while a broker is down and no commit can say that the delivery has ended.
        """
        return self._accused.startswith(digest(key)) and _COINCIDENCES <= self._accused[-1] < _GROUP[-1]

    def accused(self, key: str) -> bool:
        """Return whether a delivery ran when the last worker ended here: alone, or with those of its `group_of`."""
        return self._accused in (group_of(key), digest(key) + self._accused[-1:])

    def name(self, key: str | None, *, alone: bool = True) -> None:
        """Let the next Mark name the delivery *key*, or its group where it is not *alone* (None: nobody). The caller commits then."""
        if key is None:
            self._suspect = NOBODY
        elif not alone:
            self._suspect = group_of(key)
        else:
            times = min(self._accused[-1], _COINCIDENCES) if self._accused.startswith(digest(key)) else 0
            self._suspect = digest(key) + bytes([times + 1])

    def calm(self) -> None:
        """Count this start as a good one: the worker has lived for a while."""
        self._starts, self.careful, self._accused = 0, False, NOBODY


def _put(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _numbers(raw: bytes) -> Iterable[int]:
    number = shift = 0
    for byte in raw:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("a number is cut off")

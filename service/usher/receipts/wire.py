"""The bytes of receipts: how many of them become one record of the log, and are read back.

A record is one byte for the version, four for the size of what follows, and that: a list of receipts in MessagePack, compressed
with zstd. Receipts of one record are alike, so together they take half of what they take alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import cramjam
from msgspec import MsgspecError, msgpack
from msgspec.structs import replace

from usher.receipts.receipt import Receipt

VERSION: Final = 1
MOST_BYTES: Final = 60 * 1024
"""The bytes of one record, at most: every topic that is used takes so many."""
_MOST_UNPACKED: Final = 256 * 1024
"""The bytes that the receipts of one record take before they are compressed, at most."""
_HEAD: Final = 5
_AT_ONCE: Final = 300
"""Receipts: of usual ones more would not fit into a record."""
_LEVEL: Final = 1
"""The quickest: higher levels take ten times as long for a twentieth less."""
_LONGEST: Final = 400
"""Characters. A text that is longer is cut where the receipts would not fit into a record otherwise."""
_TEXTS: Final = tuple(name for name in Receipt.__struct_fields__ if Receipt.__annotations__[name] == "str")
_decode: Final = msgpack.Decoder(list[Receipt]).decode


def _as_text(value: object) -> str:
    """Return the plain text of a text that has a class of its own: a handler's template may, and a reason that was scrubbed."""
    if isinstance(value, str):
        return str.__str__(value)  # its own methods may return its own kind
    raise NotImplementedError(f"receipts hold no {type(value).__name__}")


_encode: Final = msgpack.Encoder(enc_hook=_as_text).encode


class UnreadableReceipts(ValueError):
    """The value of a record of the receipts' topic that this Usher can't read: it is of a newer one, or nobody's."""


def pack(receipts: Sequence[Receipt]) -> list[bytes]:
    """Write receipts, in their order, as the values of as few records as the limit of a record allows. `unpack` reads each."""
    return [
        record for first in range(0, len(receipts), _AT_ONCE) for record in _packed(receipts[first : first + _AT_ONCE])
    ]


def _packed(receipts: Sequence[Receipt]) -> Iterator[bytes]:
    try:
        raw = _encode(receipts)
    except UnicodeEncodeError:  # half a character, which a document in JSON may hold
        raw = _encode([_plain(receipt) for receipt in receipts])
    if len(raw) <= _MOST_UNPACKED:
        record = bytes((VERSION,)) + len(raw).to_bytes(4) + bytes(cramjam.zstd.compress(raw, level=_LEVEL))
        if len(record) <= MOST_BYTES:
            yield record
            return
    if half := len(receipts) // 2:
        yield from _packed(receipts[:half])
        yield from _packed(receipts[half:])
    else:
        yield from _packed([_plain(receipts[0])])


def _plain(receipt: Receipt) -> Receipt:
    """Return the receipt with texts that UTF-8 can encode, and none that is longer than any real one."""
    texts = {name: getattr(receipt, name)[:_LONGEST].encode("utf-8", "replace").decode() for name in _TEXTS}
    return replace(receipt, **texts)


def unpack(value: bytes | None) -> list[Receipt]:
    """Read the receipts in the value of one record.

    Raises:
        UnreadableReceipts: says why. Never quotes the value.
    """
    if not value or value[0] != VERSION:
        what = f"of the format {value[0]}" if value else "empty"
        raise UnreadableReceipts(
            f"these receipts are {what}, and this Usher reads {VERSION}: a newer Usher wrote them?"
        )
    if (size := int.from_bytes(value[1:_HEAD])) > _MOST_UNPACKED:
        raise UnreadableReceipts(
            f"these receipts say that they have {size:,} bytes, and {_MOST_UNPACKED:,} is the most"
        )
    raw = bytearray(size)
    try:
        written = cramjam.zstd.decompress_into(value[_HEAD:], raw)
        if written != size:
            raise UnreadableReceipts(f"these receipts have {written:,} bytes, and say that they have {size:,}")
        return _decode(raw)
    except (cramjam.DecompressionError, MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableReceipts(f"these are no receipts of Usher ({type(error).__name__})") from None

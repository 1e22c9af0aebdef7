"""How long an SMS is: the GSM 7-bit alphabet, its escapes, and where a text is cut into segments (3GPP TS 23.038, 23.040).

A text that fits GSM-7 has 160 units in one segment and 153 in each of several; any other goes out as UCS-2, with 70 and 67
UTF-16 units. A character of two units is never cut in half.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Encoding = Literal["GSM-7", "UCS-2"]

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_ESCAPED = frozenset("^{}\\[~]|€\f")
_CAPACITY: dict[Encoding, tuple[int, int]] = {"GSM-7": (160, 153), "UCS-2": (70, 67)}

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\t", " "),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", ""),
        "\u2026": "...",
        "\u2022": "*",
    }
)
"""Typography that has a plain equivalent. Letters are left alone: taking an accent off changes a word."""


class Length(NamedTuple):
    """How a text goes out: *units* are septets or UTF-16 units, escapes and both halves of a pair counted."""

    encoding: Encoding
    units: int
    segments: int


def plain(text: str) -> str:
    """*text* with typography replaced by its GSM-7 equivalent, if that makes all of it fit the alphabet; else as it is."""
    candidate = text.translate(_PLAIN)
    return candidate if _fits(candidate) else text


def length(text: str) -> Length:
    """The encoding, units and number of segments that *text* takes. The empty text takes one segment."""
    encoding: Encoding = "GSM-7" if _fits(text) else "UCS-2"
    widths = [_width(character, encoding) for character in text]
    single, several = _CAPACITY[encoding]
    units = sum(widths)
    if units <= single:
        return Length(encoding, units, 1)
    segments, room = 1, several
    for width in widths:
        if width > room:
            segments, room = segments + 1, several
        room -= width
    return Length(encoding, units, segments)


def _fits(text: str) -> bool:
    return all(character in _BASIC or character in _ESCAPED for character in text)


def _width(character: str, encoding: Encoding) -> int:
    if encoding == "GSM-7":
        return 2 if character in _ESCAPED else 1
    return 2 if ord(character) > 0xFFFF else 1

"""The rates as a picture (SVG): a panel for each workload, a bar for each contender."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tests.bench.contenders import CONTENDERS, USHER, Contender
from tests.bench.outcome import Rates

_COLUMNS = 2
_PANEL_WIDTH, _PANEL_HEIGHT = 420, 150
_BAR, _STEP, _TOP = 14, 22, 38
_LABELS, _NUMBERS = 118, 62
_OURS, _OTHERS, _INK, _QUIET = "#0b6e4f", "#b4bcc4", "#1f2328", "#59636e"


_FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def picture(rates: Sequence[Rates], caption: str) -> str:
    """The bars of a panel are in proportion to each other; each panel has a scale of its own."""
    lines = -(-len(rates) // _COLUMNS)
    width, height = _COLUMNS * _PANEL_WIDTH + 20, lines * _PANEL_HEIGHT + 30
    panels = [
        _panel(each, x=10 + number % _COLUMNS * _PANEL_WIDTH, y=number // _COLUMNS * _PANEL_HEIGHT)
        for number, each in enumerate(rates)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {_FONT} role="img">',
            f"<title>{escape(caption)}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *panels,
            f'<text x="10" y="{height - 10}" fill="{_QUIET}" font-size="11">{escape(caption)}</text>',
            "</svg>",
            "",
        ]
    )


def _panel(rates: Rates, x: int, y: int) -> str:
    known = [(contender, rates.rates[contender]) for contender in CONTENDERS if contender in rates.rates]
    longest = max((value for _, value in known), default=0.0)
    title = f'<text x="{x}" y="{y + 24}" fill="{_INK}" font-weight="600">{escape(rates.work)}</text>'
    bars = [
        _bar(contender, value, longest, x, y + _TOP + number * _STEP) for number, (contender, value) in enumerate(known)
    ]
    return "\n".join([title, *bars])


def _bar(contender: Contender, value: float, longest: float, x: int, y: int) -> str:
    room = _PANEL_WIDTH - _LABELS - _NUMBERS
    length = max(1.0, room * value / longest) if longest else 1.0
    colour, weight = (_OURS, "600") if contender is USHER else (_OTHERS, "400")
    base = y + _BAR - 3
    return (
        f'<text x="{x + _LABELS - 8}" y="{base}" fill="{_INK}" text-anchor="end" font-weight="{weight}">'
        f"{escape(contender.title)}</text>"
        f'<rect x="{x + _LABELS}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>'
        f'<text x="{x + _LABELS + length + 6:.1f}" y="{base}" fill="{_QUIET}">{value:,.0f}/s</text>'
    )

"""Figures as pictures (SVG): a panel for each workload or for what grows, a bar for each contender or size."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tests.bench.contenders import CONTENDERS, USHER, USHER_READING, USHER_RECEIPTS
from tests.bench.outcome import Growth, Rates

Panel = tuple[str, Sequence[tuple[str, float, str, bool]]]
"""A title, and for each bar its label, its length, what is written behind it, and whether it is one of Usher's."""

_COLUMNS = 2
_PANEL_WIDTH = 420
_BAR, _STEP, _TOP = 14, 22, 38
_LABELS, _NUMBERS = 136, 74
_OURS, _OTHERS, _INK, _QUIET = "#0b6e4f", "#b4bcc4", "#1f2328", "#59636e"


_FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def picture(rates: Sequence[Rates], caption: str) -> str:
    """What each contender does in a second."""
    return _drawn([(_title(each), _bars_of(each)) for each in rates], caption)


def picture_of_growth(growths: Sequence[Growth], caption: str) -> str:
    """What a unit costs at each size: where no bar is longer than the first, the cost is linear at most."""
    return _drawn([(f"{each.what}: CPU a {each.unit}", _bars_of_growth(each)) for each in growths], caption)


def _title(rates: Rates) -> str:
    return f"the real job, {rates.work}" if rates.unit == "message" else rates.work


def _bars_of(rates: Rates) -> list[tuple[str, float, str, bool]]:
    return [
        (contender.title, rate, f"{rate:,.0f}/s", contender in (USHER, USHER_RECEIPTS, USHER_READING))
        for contender in CONTENDERS
        if (rate := rates.rates.get(contender.name)) is not None
    ]


def _bars_of_growth(growth: Growth) -> list[tuple[str, float, str, bool]]:
    return [(point.label, point.cpu, f"{point.cpu:,.1f} µs", True) for point in growth.points]


def _drawn(panels: Sequence[Panel], caption: str) -> str:
    """The bars of a panel are in proportion to each other; each panel has a scale of its own, each line its height."""
    drawn, y = [], 0
    for start in range(0, len(panels), _COLUMNS):
        line = panels[start : start + _COLUMNS]
        drawn += [_panel(panel, x=10 + number * _PANEL_WIDTH, y=y) for number, panel in enumerate(line)]
        y += _TOP + max(len(bars) for _, bars in line) * _STEP + 8
    width, height = _COLUMNS * _PANEL_WIDTH + 20, y + 30
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {_FONT} role="img">',
            f"<title>{escape(caption)}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *drawn,
            f'<text x="10" y="{height - 10}" fill="{_QUIET}" font-size="11">{escape(caption)}</text>',
            "</svg>",
            "",
        ]
    )


def _panel(panel: Panel, x: int, y: int) -> str:
    title, bars = panel
    longest = max((length for _, length, _, _ in bars), default=0.0) or 1.0
    heading = f'<text x="{x}" y="{y + 24}" fill="{_INK}" font-weight="600">{escape(title)}</text>'
    lines = [
        _bar(label, length / longest, said, x, y + _TOP + number * _STEP, ours=ours)
        for number, (label, length, said, ours) in enumerate(bars)
    ]
    return "\n".join([heading, *lines])


def _bar(label: str, share: float, said: str, x: int, y: int, *, ours: bool) -> str:
    length = max(1.0, (_PANEL_WIDTH - _LABELS - _NUMBERS) * share)
    colour, weight = (_OURS, "600") if ours else (_OTHERS, "400")
    base = y + _BAR - 3
    return (
        f'<text x="{x + _LABELS - 8}" y="{base}" fill="{_INK}" text-anchor="end" font-weight="{weight}">'
        f"{escape(label)}</text>"
        f'<rect x="{x + _LABELS}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>'
        f'<text x="{x + _LABELS + length + 6:.1f}" y="{base}" fill="{_QUIET}">{said}</text>'
    )

"""The timeline of each event. It is made only of the service's log lines and of what `usher why` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from usher.demo.cast import Scene

COLUMNS = ("time", "event", "user", "what happened")

_Row = tuple[datetime, str]


def rows(
    scene: Scene, fates: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]
) -> Iterator[Sequence[object]]:
    """Yield the rows of one event under `COLUMNS`, in order.

    Args:
        scene: the event; the rows are about its handler only.
        fates: what ``usher why --json`` says of the event.
        lines: all log lines of the service.
    """
    ours = [fate for fate in fates if fate["handler"] == scene.handler]
    of_handler = [line for line in lines if (line.get("event_id"), line.get("handler")) == (scene.id, scene.handler)]
    replayed = any(fate["state"] == "replayed" for fate in ours)
    moments = [*_arrivals(scene, ours), *_attempts(of_handler, replayed=replayed), *_repeats(ours)]
    moments.sort(key=lambda row: row[0].replace(microsecond=0))  # an arrival is known to the second only
    for number, (time, what) in enumerate(moments):
        first = number == 0
        yield f"{time:%H:%M:%S}", scene.type if first else "", scene.name if first else "", what


def _arrivals(scene: Scene, fates: Sequence[Mapping[str, Any]]) -> Iterator[_Row]:
    way = "by webhook" if scene.by == "webhook" else "from the file"
    for fate in fates[:1]:
        left_out = f"; left out: {fate['reason']}" if fate["state"] == "filtered" else ""
        yield moment(fate["stored_at"]), f"received {way}{left_out}"


def _repeats(fates: Sequence[Mapping[str, Any]]) -> Iterator[_Row]:
    for fate in fates[1:]:
        yield moment(fate["at"]), f"received again; {fate['state']}: {fate['reason']}"


def _attempts(lines: Sequence[Mapping[str, Any]], *, replayed: bool) -> Iterator[_Row]:
    dead = False
    for line in lines:
        time, attempt = moment(line["timestamp"]), f"attempt {line['attempt']}"
        if line["event"] == "parked":
            yield time, f"{attempt}: {line['error']}; parked until {moment(line['due']):%H:%M:%S}"
        elif line["event"] == "dead-lettered":
            dead = True
            yield time, f"{attempt}: {line['error']} Dead-lettered ({line['reason']})"
        elif line["event"] == "message sent":
            what = f"{line['channel']} sent by {line['provider']} ({line['template']}, {line['language']})"
            yield time, f"replayed: {what}" if dead and replayed else f"{attempt}: {what}"


def moment(iso: str) -> datetime:
    """Return the time of a log line or a row, in UTC."""
    return datetime.fromisoformat(iso).astimezone(UTC)

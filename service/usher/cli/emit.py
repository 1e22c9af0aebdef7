"""`usher emit`: append events from files to the topic that webhooks append to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from usher.cli import _options as opt
from usher.cli._console import print_json, result, say
from usher.cli._exits import Exit, Stop

if TYPE_CHECKING:
    from usher.cli._events import Found
    from usher.eventlog.port import TopicPartition
    from usher.settings import Settings

_AT_ONCE = 100
"""Records that wait for the log's acknowledgement side by side."""


def emit(
    *,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="One event, an array or JSON lines; - is stdin.")
    ],
    topic: Annotated[
        str | None, typer.Option(metavar="NAME", help="The topic to append to [USHER_INGEST_TOPIC].")
    ] = None,
    source: opt.Source = None,
    force: Annotated[bool, typer.Option("--force", help="Append also what can't be decoded, as it is.")] = False,
    json: opt.Json = False,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
) -> None:
    """Append the events in FILEs to the log, keyed by user; credentials in them are left out.

    All are decoded first: if one can't be, nothing is appended. Returns once the log has acknowledged them all.
    """
    from usher.cli import _events
    from usher.systems import open_source

    settings = opt.load(event_log=event_log, group=group, topics=topics, ingest_topic=topic)
    found = _events.read(files, open_source(settings, source) if source else None)
    wrong = [item for item in found if item.event is None]
    for item in wrong:
        say(f"{item.where}: {item.wrong}")
    if wrong and not force:
        raise Stop(f"Nothing was appended: {len(wrong)} of {len(found)} can't be decoded. Mend them, or give --force.")
    topic_partitions = asyncio.run(_append(settings, found))
    if json:
        print_json(
            {
                "topic": topic_partition.topic,
                "partition": topic_partition.partition,
                "event": item.event.id if item.event else None,
            }
            for item, topic_partition in zip(found, topic_partitions, strict=True)
        )
        return
    for topic_partition, count in sorted(Counter(topic_partitions).items()):
        result(f"{topic_partition.topic} partition {topic_partition.partition}: {count} appended")
    if not found:
        raise Stop("There are no events in it.", Exit.FAILED)


async def _append(settings: Settings, found: Sequence[Found]) -> list[TopicPartition]:
    from usher.storage import browser

    topic_partitions: list[TopicPartition] = []
    async with browser(settings) as log:
        for wave in _waves(found):
            topic_partitions += await asyncio.gather(
                *(log.append(settings.ingest_topic, item.key, item.value) for item in wave)
            )
    return topic_partitions


def _waves(found: Iterable[Found]) -> Iterator[list[Found]]:
    """*found* in pieces, none with two events of one key: those must be acknowledged one after the other."""
    wave: list[Found] = []
    keys: set[bytes | None] = set()
    for item in found:
        if item.key in keys or len(wave) == _AT_ONCE:
            yield wave
            wave, keys = [], set()
        wave.append(item)
        keys.add(item.key)
    if wave:
        yield wave

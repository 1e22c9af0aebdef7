"""`usher emit`: append events from files to the topic that webhooks append to, too."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated

import typer

from usher.cli import _options as opt
from usher.cli._exits import Stop
from usher.terminal import print_json, result, say


def emit(
    *,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="One event, a JSON array or JSON lines; - is stdin.")
    ],
    topic: Annotated[
        str | None, typer.Option(metavar="NAME", help="The topic to append to [USHER_INGEST_TOPIC].")
    ] = None,
    source: opt.Source = None,
    force: Annotated[bool, typer.Option("--force", help="Append also what can't be decoded, unchanged.")] = False,
    json: opt.Json = False,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
) -> None:
    """Append the events in files to the event log, keyed by user and without credentials.

    All events are decoded first: if one can't be decoded, nothing is appended.

    The command returns once the event log has acknowledged them all.
    """
    from usher.operate.emit import append
    from usher.operate.event_files import read

    settings = opt.load(event_log=event_log, group=group, topics=topics, ingest_topic=topic)
    items = read(settings, files, source)
    wrong = [item for item in items if item.event is None]
    for item in wrong:
        say(f"{item.where}: {item.wrong}{opt.source_hint(source)}")
    if wrong and not force:
        raise Stop(f"Nothing was appended: {len(wrong)} of {len(items)} can't be decoded. Mend them, or give --force.")
    topic_partitions = asyncio.run(append(settings, items))
    if json:
        print_json(
            {"topic": name, "partition": partition, "event": item.event.id if item.event else None}
            for item, (name, partition) in zip(items, topic_partitions, strict=True)
        )
        return
    for topic_partition, count in sorted(Counter(topic_partitions).items()):
        result(f"{topic_partition.topic} partition {topic_partition.partition}: {count} appended")
    if not items:
        raise Stop("The files hold no events.")

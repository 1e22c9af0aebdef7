"""The `usher` command on a real Kafka: topics are planned, applied and checked; dead letters of several partitions are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.kafka import Broker, unique
from tests.service import environment, running, usher

from usher.testing import raw_event


async def test_topics_are_planned_applied_and_checked(kafka: Broker, tmp_path: Path) -> None:
    """A missing source topic is a problem with a command; once it is there, apply creates the rest and check is content."""
    source, group = unique("events"), unique("group")
    env = environment(event_log=f"kafka://{kafka.servers}", topics=source, group=group)

    code, out, _ = await usher("topics", "plan", "--json", cwd=tmp_path, env=env)
    missing = json.loads(out)
    assert code == 1
    assert (missing[0]["topic"], missing[0]["wrong"]) == (source, "missing")
    assert "kafka-topics" in missing[0]["remedy"]
    assert (await usher("check", cwd=tmp_path, env=env))[0] == 1

    await kafka.create_topic(source, 3)
    code, out, err = await usher("topics", "apply", "--json", cwd=tmp_path, env=env)
    assert code == 0, err
    assert {row["topic"] for row in json.loads(out)} == {
        f"{group}.{source}-retry",
        f"{group}.{source}-dlt",
        f"{group}.receipts",
        f"{group}.checkpoints",
    }

    code, out, err = await usher("topics", "plan", "--json", cwd=tmp_path, env=env)
    assert code == 0, err
    assert [row["partitions"] for row in json.loads(out)] == [3, 3, 3, 3, 1]
    code, out, err = await usher("check", "--json", cwd=tmp_path, env=env)
    assert code == 0, out
    assert not [row for row in json.loads(out) if row["status"] == "problem"]


async def test_a_key_of_receipts_that_everybody_may_read_is_warned_of(kafka: Broker, tmp_path: Path) -> None:
    """Where none is set it lies in the topic of checkpoints: `usher check` says so, and `usher run` at its start."""
    source, group = unique("events"), unique("group")
    await kafka.create_topic(source)
    warned = []
    for settings in ({}, {"receipts__key": "a secret of the group"}, {"receipts": "off"}):
        env = environment(event_log=f"kafka://{kafka.servers}", topics=source, group=group, **settings)
        async with running(tmp_path, env) as service:
            await service.line("ready")
        lines = [line["hint"] for line in service.lines if line["event"].startswith("the key of receipts")]
        code, out, err = await usher("check", "--json", cwd=tmp_path, env=env)
        assert code == 0, err
        texts = [row["text"] for row in json.loads(out) if row["status"] == "warn" and row["what"].endswith("__KEY")]
        warned.append((lines, texts))

    assert warned[1:] == [([], [])] * 2
    ([line], [text]) = warned[0]
    assert f"USHER_RECEIPTS__KEY is not set, so the key of receipts lies in the topic {group}.checkpoints" in line
    assert line == f"USHER_RECEIPTS__KEY {text}"


async def test_an_event_is_found_on_the_partition_it_was_keyed_to(kafka: Broker, tmp_path: Path) -> None:
    """emit says where it put an event, and why finds it there, not read yet."""
    source, group = unique("events"), unique("group")
    env = environment(event_log=f"kafka://{kafka.servers}", topics=source, group=group)
    await kafka.create_topic(source, 3)
    await usher("topics", "apply", cwd=tmp_path, env=env)

    events = b"\n".join(raw_event(id=f"{number:04x}", email=f"user{number}@example.org") for number in range(20))
    code, out, err = await usher("emit", "--json", "-", cwd=tmp_path, env=env, stdin=events)
    assert code == 0, err
    placed: dict[str, Any] = {row["event"]: row for row in json.loads(out)}
    assert len(placed) == 20
    assert {row["partition"] for row in placed.values()} == {0, 1, 2}

    code, out, err = await usher("why", "0007", "--json", cwd=tmp_path, env=env)
    assert code == 0, err
    (event,) = json.loads(out)
    assert {row["handler"]: row["state"] for row in event["deliveries"]}["welcome_email"] == "not-read"
    _, out, _ = await usher("why", "0007", cwd=tmp_path, env=env)
    assert f"{source} {placed['0007']['partition']}@" in out

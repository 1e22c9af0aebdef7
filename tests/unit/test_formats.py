"""What Usher wrote is read by every later version.

The files in ``tests/samples/usher`` are what users have on their disks. None of them is written anew: a version that writes in
another way adds files of its own, and reads these as well. `test_ownership` runs what was parked; `test_receipts` reads receipts.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from usher.delivery import StoredRecord
from usher.delivery.headers import read_delivery
from usher.engine.dead_letters import fold
from usher.engine.ledger import Mark
from usher.event import EventUid
from usher.eventlog.kafka.known_topics import KnownTopic, known_topic_in
from usher.eventlog.lease import fold_checkpoints
from usher.eventlog.names import checkpoints_topic
from usher.eventlog.notes import GroupStart, Notes
from usher.eventlog.port import TopicPartition

SAMPLES = Path(__file__).parents[1] / "samples" / "usher"


def sample(name: str) -> Sequence[dict[str, Any]]:
    found: Sequence[dict[str, Any]] = json.loads((SAMPLES / name).read_text("utf-8"))
    return found


def records(name: str) -> list[StoredRecord]:
    def one(offset: int, each: dict[str, Any]) -> StoredRecord:
        key, value = (None if each[part] is None else b64decode(each[part]) for part in ("key", "value"))
        headers = [(header, b64decode(text)) for header, text in each["headers"]]
        return StoredRecord(
            each.get("topic", checkpoints_topic("usher")), 0, offset, 1_750_000_000_000, key, value, headers
        )

    return [one(offset, each) for offset, each in enumerate(sample(name))]


@pytest.mark.parametrize(
    ("name", "topic_id", "failed_at"),
    [("records-0.json", "", None), ("records-1.json", "identity.events#1", 1_750_000_000_450)],
)
def test_parked_records_are_read(name: str, topic_id: str, failed_at: int | None) -> None:
    """With everything that was known of the delivery."""
    delivery = read_delivery(records(name)[0])

    assert delivery.key == "script/authgear/demo/0a01@0-0"
    assert (delivery.handler, delivery.uid) == ("script", EventUid("authgear", "demo", "0a01"))
    assert delivery.lane_key == "script/authgear/demo/u1"
    assert (delivery.attempt, delivery.due, delivery.first_failed_at) == (1, 1_750_000_000_500, 1_750_000_000_400)
    assert (delivery.failed_at, delivery.error, delivery.error_type) == (failed_at, "busy", "usher.outcome.Retry")
    origin = delivery.origin
    assert (origin.topic, origin.topic_id, origin.partition, origin.offset) == ("identity.events", topic_id, 0, 0)
    assert (origin.timestamp, origin.key, origin.headers) == (1_750_000_000_000, b"k", (("traceparent", b"00-1"),))
    assert json.loads(delivery.value)["id"] == "0a01"


@pytest.mark.parametrize("name", ["records-0.json", "records-1.json"])
def test_dead_letters_requests_and_their_states_are_read(name: str) -> None:
    by_what = dict(zip((each["what"] for each in sample(name)), records(name), strict=True))
    dead = by_what["dead letter"]
    found: dict[str, Any] = {}

    fold([StoredRecord(dead.topic, 0, 0, dead.timestamp, dead.key, dead.value, dead.headers), by_what["state"]], found)

    assert {id_: (each.state, each.reason) for id_, each in found.items()} == {"0@0": ("dropped", "attempts-exhausted")}
    replay = read_delivery(by_what["request"]).replay
    assert replay is not None
    assert (replay.id, replay.dead_letter, replay.count) == ("r1", "0@0", 1)


def test_marks_are_read() -> None:
    for each in sample("marks-1.json"):
        mark = Mark.decode(each["text"], each["base"])

        assert mark == Mark(
            each["base"],
            each["seen"],
            {int(offset): done for offset, done in each["undone"].items()},
            bytes.fromhex(each["handlers"]),
            each["starts"],
            bytes.fromhex(each["suspect"]),
        )


def test_checkpoints_are_read() -> None:
    """Which topics the offsets are of, where the group began, the key of receipts, and how far a feed was read."""
    kept = records("checkpoints-1.json")
    notes, checkpoints = Notes("usher"), dict[str, bytes]()

    notes.take(kept)
    fold_checkpoints(kept, "usher", checkpoints)

    known = [found for record in kept if (found := known_topic_in(record, "usher")) is not None]
    assert [(each.partition, topic) for each, topic in known] == [
        (2, KnownTopic("mJ0wT3yZQ6mE3r0x2aQ5Yw")),
        (3, KnownTopic("~1", remade=True, stopped_at=12)),
    ]
    began = GroupStart("mJ0wT3yZQ6mE3r0x2aQ5Yw", 1041, 1_750_000_000_000)
    assert notes.starts == {TopicPartition("identity.events", 2): began}
    assert notes.address_key == hashlib.sha256(b"a").digest()
    assert checkpoints["keycloak"] == b'{"any":"cursor"}'

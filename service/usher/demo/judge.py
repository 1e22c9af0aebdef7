"""Judge whether the demo showed what it says: by the outbox, the dead letters and the metrics, not by what it printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from usher.demo.cast import BY_WEBHOOK, LEFT_OUT, NOOR, SCENES
from usher.demo.outbox import SentMessage

_REPEATS = 1


@dataclass(frozen=True, slots=True)
class Scrape:
    """The text of ``/metrics``."""

    text: str

    def total(self, name: str, **labels: str) -> float:
        """Add up the samples *name* that have these labels; 0 if there are none."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@dataclass(slots=True)
class Facts:
    """The facts that the demo has found.

    *dead* and *dead_in_the_end* are rows of ``usher dlq list --json``, before and after the replay; *exit_code* is that of
    the service after SIGTERM. *untold* are rows of ``usher untold --json``, before the replay. *leaks* are the files of the service in
    which a credential was found.
    """

    messages: Sequence[SentMessage] = ()
    dead: Sequence[Mapping[str, Any]] = ()
    dead_in_the_end: Sequence[Mapping[str, Any]] = ()
    untold: Sequence[Mapping[str, Any]] = ()
    metrics: Scrape = field(default_factory=lambda: Scrape(""))
    exit_code: int | None = None
    leaks: Sequence[str] = ()


def failures(facts: Facts) -> list[str]:
    """Return a sentence for each expectation that was not met; none: all that was announced has happened."""
    return [
        *_of_messages(facts.messages),
        *_of_dead_letters(facts),
        *of_metrics(facts.metrics),
        *_of_exit(facts.exit_code),
        *(f"{name} holds a password that an identity system has sent" for name in facts.leaks),
    ]


def kind_of(handler: str) -> str:
    """Return the `SentMessage.kind` of a message that *handler* sends in this demo."""
    return "SMS" if handler == "sms_notice" else handler


def _of_messages(messages: Sequence[SentMessage]) -> Iterator[str]:
    expected = Counter((kind_of(scene.handler), scene.to) for scene in SCENES if scene.to is not None)
    found = Counter((message.kind, message.to) for message in messages)
    for (kind, to), count in (expected - found).items():
        yield f"the outbox lacks {count} message: {kind} to {to}"
    for (kind, to), count in (found - expected).items():
        yield f"the outbox holds {count} message too many: {kind} to {to}"


def _of_dead_letters(facts: Facts) -> Iterator[str]:
    named = [(dead_letter["event_id"], dead_letter["handler"], dead_letter["reason"]) for dead_letter in facts.dead]
    if named != [(NOOR.id, NOOR.handler, "rejected")]:
        yield f"dlq list should have named {NOOR.name}'s {NOOR.handler} alone, as rejected; it named {named}"
    elif "400" not in str(facts.dead[0]["error"]):
        yield f"the dead letter should say that the provider answered 400; it says {facts.dead[0]['error']!r}"
    untold = [(row["reason"], row["event"]["id"]) for row in facts.untold]
    if untold != [("dead", NOOR.id)]:
        yield f"before the replay nobody but {NOOR.name} should be untold; usher untold named {untold}"
    if facts.dead_in_the_end:
        yield f"after the replay no dead letter should be open; there are {len(facts.dead_in_the_end)}"


def of_metrics(metrics: Scrape) -> Iterator[str]:
    """Yield what `failures` says of the metrics alone."""
    filtered = "usher_events_filtered_total"
    found = {
        "records read": metrics.total("usher_records_total"),
        "webhook calls stored": metrics.total("usher_ingested_total", outcome="stored"),
        "webhook calls with a bad signature": metrics.total("usher_ingested_total", outcome="bad-signature"),
        "events left out as duplicates": metrics.total(filtered, reason="duplicate"),
        # Which of the two it is depends on whether the raw bytes were enough to decide.
        "events left out by triggered_by": metrics.total(filtered, reason="prefilter")
        + metrics.total(filtered, reason="triggered_by"),
        "attempts to be retried": metrics.total("usher_attempts_total", outcome="retry"),
        "attempts that the provider rejected": metrics.total("usher_attempts_total", outcome="rejected"),
        "attempts that were done": metrics.total("usher_attempts_total", outcome="done"),
        "replays that succeeded": metrics.total("usher_replays_total", outcome="replayed"),
        "dead letters": metrics.total("usher_dead_letters_total"),
        "deliveries still parked": metrics.total("usher_parked"),
    }
    for what, count in _COUNTS.items():
        if found[what] != count:
            yield f"/metrics: {what} should be {count}, not {found[what]:g}"


def _of_exit(code: int | None) -> Iterator[str]:
    if code != 0:
        yield f"after SIGTERM the service should have ended with exit code 0, not {code}"


_COUNTS: Mapping[str, int] = {
    "records read": len(SCENES) + _REPEATS,
    "webhook calls stored": len(BY_WEBHOOK) + _REPEATS,
    "webhook calls with a bad signature": 1,
    "events left out as duplicates": _REPEATS,
    "events left out by triggered_by": len(LEFT_OUT),
    "attempts to be retried": 1,
    "attempts that the provider rejected": 1,
    "attempts that were done": len(SCENES) - len(LEFT_OUT),
    "replays that succeeded": 1,
    "dead letters": 1,
    "deliveries still parked": 0,
}

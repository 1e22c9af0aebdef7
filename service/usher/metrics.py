"""Every name that leaves the process as a metric, each with its kind, unit and labels. docs/operating.md explains them.

No label holds a user, an address or an event id. One `Metrics` belongs to one App and has its own registry, so that two
in one process (tests) do not add up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_SEND_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The catalogue, and what is written too often to look its labels up each time."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.records = Counter("usher_records", "Records read from source topics.", ["topic"], registry=registry)
        self.filtered = Counter(
            "usher_events_filtered",
            "Records that no handler runs for. reason: prefilter, triggered_by, type, duplicate, empty, nothing.",
            ["reason"],
            registry=registry,
        )
        self.skipped = Counter(
            "usher_skips",
            "Deliveries that had nothing to send. reason: no-address, other.",
            ["handler", "reason"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "usher_dead_letters", "Dead letters written.", ["handler", "reason"], registry=registry
        )
        self.replays = Counter(
            "usher_replays",
            "Replays that ended. outcome: replayed, failed (or refused: too late, or the handler is gone).",
            ["handler", "outcome"],
            registry=registry,
        )
        self.parked = Gauge(
            "usher_parked", "Deliveries in the parking table.", ["topic", "partition"], registry=registry
        )
        self.oldest_due_age = Gauge(
            "usher_oldest_due_age_seconds",
            "How long the most overdue parked delivery has been due; 0: none is.",
            registry=registry,
        )
        self.in_flight = Gauge("usher_in_flight", "Deliveries queued, running or being written.", registry=registry)
        self.lag = Gauge("usher_lag", "Records not yet read.", ["topic", "partition"], registry=registry)
        self.resting = Gauge(
            "usher_partition_resting",
            "1 while a partition is not read because most of its last records are undecodable.",
            ["topic", "partition"],
            registry=registry,
        )
        self.commit_failures = Counter(
            "usher_commit_failures", "Commits that were refused or timed out.", registry=registry
        )
        self.claims = Gauge("usher_claims", "Partitions that this worker holds and has loaded.", registry=registry)
        self.send_seconds = Histogram(
            "usher_send_seconds",
            "How long a provider took to answer. outcome: done, transient, permanent, operator, unknown.",
            ["provider", "outcome"],
            buckets=_SEND_BUCKETS,
            registry=registry,
        )
        self.channel_paused = Gauge(
            "usher_channel_paused",
            "1 while a channel sends nothing. reason: operator (credentials, quota), circuit (failures in a row).",
            ["channel", "reason"],
            registry=registry,
        )
        self.rate_limited = Counter(
            "usher_messages_rate_limited",
            "Messages that were put off because their tenant has had its share of the minute.",
            ["system"],
            registry=registry,
        )
        self.ingested = Counter(
            "usher_ingested",
            "Events that webhooks brought, and calls refused. outcome: stored, undecodable, nothing, bad-signature, too-large, "
            "incomplete, not-json, lookup-failed, log-down.",
            ["source", "outcome"],
            registry=registry,
        )
        self.polled = Counter(
            "usher_polled",
            "Events that pollers found, and looks that failed. outcome: stored, known, undecodable, failed.",
            ["feed", "outcome"],
            registry=registry,
        )
        self.polled_at = Gauge(
            "usher_polled_timestamp_seconds",
            "When a feed was last read without a failure, in Unix seconds; on the worker that polls.",
            ["feed"],
            registry=registry,
        )
        self.log_lines_lost = Counter(
            "usher_log_lines_lost",
            "Lines of log that could not be written, and that there was no room to keep.",
            registry=registry,
        )
        self._attempts = _Attempts()
        registry.register(self._attempts)
        self._partitions: set[tuple[str, str]] = set()

    def attempt(self, handler: str, outcome: str, seconds: float | None = None) -> None:
        """One attempt has ended, after *seconds* (None: it was not made)."""
        self._attempts.add(handler, outcome, seconds)

    def partitions(self, parked: Mapping[tuple[str, int], int], lag: Mapping[tuple[str, int], int]) -> None:
        """What is parked and unread in each partition held now; what was told of others is taken back."""
        held = {(topic, str(partition)) for topic, partition in parked}
        for labels in self._partitions - held:
            for gauge in (self.parked, self.lag, self.resting):
                gauge.remove(*labels)
        self._partitions = held
        for labels in held:
            self.resting.labels(*labels)  # there to be taken back
        for gauge, told in ((self.parked, parked), (self.lag, lag)):
            for (topic, partition), value in told.items():
                gauge.labels(topic, str(partition)).set(value)


class _Attempts(Collector):
    """What is counted for each attempt: plain numbers, which become metrics when they are asked for.

    The library's own counters take a lock and walk their buckets each time, which is a good part of an attempt's overhead.
    """

    def __init__(self) -> None:
        self._ended: dict[tuple[str, str], int] = {}
        self._took: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def add(self, handler: str, outcome: str, seconds: float | None) -> None:
        label = (handler, outcome)
        self._ended[label] = self._ended.get(label, 0) + 1
        if seconds is not None:
            took = self._took.get(handler)
            if took is None:
                took = self._took[handler] = [0] * (len(_SEND_BUCKETS) + 1)
                self._seconds[handler] = 0.0
            took[bisect_left(_SEND_BUCKETS, seconds)] += 1
            self._seconds[handler] += seconds

    def collect(self) -> Iterator[Metric]:
        ended = CounterMetricFamily(
            "usher_attempts",
            "Attempts that ended. outcome: done, skipped, retry, failed, rejected, unknown, held, expired.",
            labels=["handler", "outcome"],
        )
        for label, count in self._ended.items():
            ended.add_metric(label, count)
        yield ended
        took = HistogramMetricFamily("usher_handler_seconds", "How long an attempt took.", labels=["handler"])
        bounds = [*(str(bound) for bound in _SEND_BUCKETS), "+Inf"]
        for handler, counts in self._took.items():
            took.add_metric([handler], list(zip(bounds, accumulate(counts), strict=True)), self._seconds[handler])
        yield took

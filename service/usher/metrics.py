"""All metrics, each with its kind, unit and labels. docs/operating.md explains them.

No label holds a user, an address or an event id. Each App has a `Metrics` of its own with its own registry, so that two
Apps in one process (tests) are counted apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_DELAY_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 14_400.0, 86_400.0)
_SEND_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class _Attempts(Collector):
    """Counts attempts, of which there are as many as deliveries: a Counter and a Histogram take four times as long for each."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, str], int] = {}
        self._took: dict[str, list[float]] = {}
        """Of each handler how many attempts each bucket has, and last the sum of their seconds."""

    def count(self, handler: str, outcome: str, seconds: float | None = None) -> None:
        """Count an attempt that has ended, after *seconds* (None: it was not made)."""
        self._ended[handler, outcome] = self._ended.get((handler, outcome), 0) + 1
        if seconds is not None:
            took = self._took.get(handler)
            if took is None:
                took = self._took[handler] = [0] * (len(_SEND_BUCKETS) + 2)
            took[bisect_left(_SEND_BUCKETS, seconds)] += 1
            took[-1] += seconds

    def collect(self) -> Iterator[Metric]:
        ended = CounterMetricFamily(
            "usher_attempts",
            "Attempts that ended. outcome: done, skipped, retry, failed, rejected, unknown, held, expired.",
            labels=["handler", "outcome"],
        )
        for labels, count in self._ended.items():
            ended.add_metric(labels, count)
        took = HistogramMetricFamily("usher_handler_seconds", "How long an attempt took.", labels=["handler"])
        for handler, (*counts, total) in self._took.items():
            buckets = zip((*map(floatToGoString, _SEND_BUCKETS), "+Inf"), accumulate(counts), strict=True)
            took.add_metric([handler], list(buckets), total)
        yield from (ended, took)


class Metrics:
    """The catalogue of metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for add in (
            self._add_events,
            self._add_partitions,
            self._add_waits,
            self._add_attempts,
            self._add_channels,
            self._add_sources,
        ):
            add(self.registry)
        self._partitions: set[tuple[str, str]] = set()

    def _add_events(self, registry: CollectorRegistry) -> None:
        self.records = Counter("usher_records", "Records read from source topics.", ["topic"], registry=registry)
        self.filtered = Counter(
            "usher_events_filtered",
            "Records that no handler runs for. reason: prefilter, triggered_by, type, duplicate, empty, nothing.",
            ["reason"],
            registry=registry,
        )
        self.skipped = Counter(
            "usher_skips",
            "Deliveries that had nothing to send. reason: no-address, disabled, other.",
            ["handler", "reason"],
            registry=registry,
        )
        self.receipts = Counter(
            "usher_receipts",
            "Receipts made. state: done, skipped, sent, dead, expired, replayed, unknown.",
            ["handler", "channel", "provider", "state"],
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

    def _add_partitions(self, registry: CollectorRegistry) -> None:
        self.claims = Gauge("usher_claims", "Partitions that this worker holds and has loaded.", registry=registry)
        self.in_flight = Gauge("usher_in_flight", "Deliveries queued, running or being written.", registry=registry)
        self.commit_failures = Counter(
            "usher_commit_failures", "Commits that were refused or timed out.", registry=registry
        )
        self.parked = Gauge(
            "usher_parked", "Deliveries in the parking table.", ["topic", "partition"], registry=registry
        )
        self.lag = Gauge("usher_lag", "Records not yet read.", ["topic", "partition"], registry=registry)
        self.resting = Gauge(
            "usher_partition_resting",
            "1 while a partition is not read because most of its last records are undecodable.",
            ["topic", "partition"],
            registry=registry,
        )
        self.stopped = Gauge(
            "usher_partition_stopped",
            "1 while a partition of this worker stands still: it can't be claimed, or can't be read.",
            ["topic", "partition"],
            registry=registry,
        )

    def _add_waits(self, registry: CollectorRegistry) -> None:
        self.oldest_due_age = Gauge(
            "usher_oldest_due_age_seconds",
            "How long the most overdue parked delivery has been due; 0: none is.",
            registry=registry,
        )
        self.longest_wait = Gauge(
            "usher_longest_wait_seconds",
            "How long the parked delivery that is due last still has to wait; 0: none waits for a moment.",
            registry=registry,
        )

    def _add_channels(self, registry: CollectorRegistry) -> None:
        self.send_seconds = Histogram(
            "usher_send_seconds",
            "How long a provider took to answer. outcome: done, transient, permanent, provider-refused, unknown.",
            ["provider", "outcome"],
            buckets=_SEND_BUCKETS,
            registry=registry,
        )
        self.notice_delay = Histogram(
            "usher_notice_delay_seconds",
            "From an event's own time until a provider has accepted the message about it.",
            ["handler", "channel"],
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )
        self.channel_paused = Gauge(
            "usher_channel_paused",
            "1 while a channel sends nothing. reason: provider-refused (credentials, quota), circuit (failures in a row).",
            ["channel", "reason"],
            registry=registry,
        )
        self.rate_limited = Counter(
            "usher_messages_rate_limited",
            "Messages that were delayed because the rate limit of their tenant is reached.",
            ["system"],
            registry=registry,
        )

    def _add_sources(self, registry: CollectorRegistry) -> None:
        self.ingested = Counter(
            "usher_ingested",
            "Events that webhooks brought, and calls refused. outcome: stored, undecodable, nothing, bad-signature, dated-ahead, "
            "too-large, incomplete, not-json, crowded, lookup-failed, event-log-down.",
            ["source", "outcome"],
            registry=registry,
        )
        self.http_bounds_reached = Counter(
            "usher_http_bounds_reached",
            "Times that callers reached a bound of the HTTP server. bound: connections, requests, head, body, unproven-bytes.",
            ["bound"],
            registry=registry,
        )
        self.polled = Counter(
            "usher_polled",
            "Events that pollers found, and polls that failed. outcome: stored, known, undecodable, failed.",
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

    def _add_attempts(self, registry: CollectorRegistry) -> None:
        attempts = _Attempts()
        registry.register(attempts)
        self.attempt = attempts.count

    def partitions(
        self,
        parked: Mapping[tuple[str, int], int],
        lag: Mapping[tuple[str, int], int],
        stopped: Collection[tuple[str, int]] = (),
    ) -> None:
        """Set what is parked and unread in each partition that is held now, and which stand still; others are removed.

        A lag that is not known now keeps its last value: it must not look like none.
        """
        held = {(topic, str(partition)) for topic, partition in (*parked, *stopped)}
        for labels in self._partitions - held:
            for gauge in (self.parked, self.lag, self.resting, self.stopped):
                with suppress(KeyError):
                    gauge.remove(*labels)
        self._partitions = held
        for topic, partition in parked:
            self.resting.labels(topic, str(partition))
        for topic, number in held:
            self.stopped.labels(topic, number).set((topic, int(number)) in stopped)
        for gauge, values in ((self.parked, parked), (self.lag, lag)):
            for (topic, partition), value in values.items():
                gauge.labels(topic, str(partition)).set(value)

"""The metrics that Usher counts by itself show as prometheus-client's own would."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from usher.metrics import _SEND_BUCKETS, Metrics


def test_attempts_are_shown_as_a_counter_and_a_histogram() -> None:
    """Names, labels, help, buckets and sums are the same, line for line; on a bound, below it and beyond the last."""
    metrics, registry = Metrics(), CollectorRegistry()
    ended = Counter(
        "usher_attempts",
        "Attempts that ended. outcome: done, skipped, retry, failed, rejected, unknown, held, expired.",
        ["handler", "outcome"],
        registry=registry,
    )
    took = Histogram(
        "usher_handler_seconds", "How long an attempt took.", ["handler"], buckets=_SEND_BUCKETS, registry=registry
    )
    for handler, outcome, seconds in (
        ("a", "done", 0.0), ("a", "retry", 0.01), ("b", "done", 0.011), ("a", "done", 61.5), ("a", "expired", None),
    ):  # fmt: skip
        metrics.attempt(handler, outcome, seconds)
        ended.labels(handler, outcome).inc()
        if seconds is not None:
            took.labels(handler).observe(seconds)

    assert _of_attempts(metrics.registry) == _of_attempts(registry)


def _of_attempts(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if ("usher_attempts" in line or "usher_handler_s" in line) and "created" not in line]

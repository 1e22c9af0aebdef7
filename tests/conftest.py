"""What all tests share: hypothesis's profile, and the broker of those that need a real Kafka."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from tests.kafka import Broker, KafkaMissing, jars

# A busy machine is no defect: hypothesis's own time limits are off, pytest-timeout watches.
hypothesis.settings.register_profile(
    "usher", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("usher")

_KAFKA_FIXTURES = {"kafka", "own_kafka"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who asks for a broker is marked by that."""
    for item in items:
        if _KAFKA_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that all tests of this process share: take `tests.kafka.unique` names, and don't stop it."""
    yield from _broker(tmp_path_factory.mktemp("kafka"))


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Broker]:
    """A broker of one's own, to be killed and started again."""
    yield from _broker(tmp_path / "kafka")


def _broker(folder: Path) -> Iterator[Broker]:
    try:
        jars()
    except KafkaMissing as missing:
        if os.environ.get("REQUIRE_KAFKA") == "1":
            pytest.fail(f"REQUIRE_KAFKA=1, but {missing}")
        pytest.skip(str(missing))
    broker = Broker(folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()

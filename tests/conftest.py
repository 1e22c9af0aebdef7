"""What all tests share: hypothesis's profile, plain log lines, and the servers of those that need a real Kafka or Keycloak."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog
from tests import keycloak as keycloaks
from tests.java import ServerMissing, started
from tests.kafka import Broker, jars

# A busy machine is no defect: hypothesis's own time limits are off, pytest-timeout watches.
hypothesis.settings.register_profile(
    "usher", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("usher")

# structlog's own default draws every traceback with the values of its variables: that was half of the engine's tests.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.set_exc_info,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who needs a broker or a Keycloak is marked by that."""
    for item in items:
        if "kafka_jars" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)
        if "keycloak" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.keycloak)


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """What a broker is run from. Without it a test is skipped; with REQUIRE_KAFKA=1 it fails."""
    try:
        return jars()
    except ServerMissing as missing:
        if os.environ.get("REQUIRE_KAFKA") == "1":
            pytest.fail(f"REQUIRE_KAFKA=1, but {missing}")
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def kafka(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that all tests of this process share: take `tests.kafka.unique` names, and don't stop it."""
    with started(Broker(tmp_path_factory.mktemp("kafka"))) as broker:
        yield broker


@pytest.fixture
def own_kafka(kafka_jars: Path, tmp_path: Path) -> Iterator[Broker]:
    """A broker of one's own, to be killed and started again."""
    with started(Broker(tmp_path / "kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[keycloaks.Server]:
    """A Keycloak that all tests of this process share: each takes a realm of its own. Modules that use it are one xdist group.

    Without Java or Maven a test is skipped; with REQUIRE_KEYCLOAK=1 it fails.
    """
    try:
        keycloaks.distribution()
    except ServerMissing as missing:
        if os.environ.get("REQUIRE_KEYCLOAK") == "1":
            pytest.fail(f"REQUIRE_KEYCLOAK=1, but {missing}")
        pytest.skip(str(missing))
    with started(keycloaks.Server(tmp_path_factory.mktemp("keycloak"))) as server:
        yield server

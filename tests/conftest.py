"""What all tests share: hypothesis's profile, plain log lines, and the servers of those that need a real Kafka or Keycloak."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest
import structlog
from tests import keycloak as keycloaks
from tests.java import Server, ServerMissing, shared, started
from tests.jumping_loop import JumpingLoop
from tests.kafka import BACK_SOON, Broker, jars

_Server = TypeVar("_Server", bound=Server)

# Commands keep an index of receipts in the platform's cache folder: tests have one of their own, and so have the processes they start.
_CACHE = tempfile.TemporaryDirectory(prefix="usher-tests-cache-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name

# A busy machine is no defect: hypothesis's own time limits are off, pytest-timeout watches.
hypothesis.settings.register_profile(
    "usher", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("usher"), max_examples=10)
hypothesis.settings.load_profile("usher")

# By default structlog draws every traceback with the values of its variables: that took half of the engine's tests.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.set_exc_info,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """What a test does to logging ends with it: a command that runs in process sets it up for itself."""
    root, ours = logging.getLogger(), logging.getLogger("usher")
    handlers, level, our_level, configured = list(root.handlers), root.level, ours.level, structlog.get_config()
    processors = list(configured["processors"])
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
    structlog.configure(**{**configured, "processors": processors})


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Which event loop a test runs on: asyncio's own, or one whose clock jumps."""
    return {"jumping": JumpingLoop} if item.get_closest_marker("jumping") else {"usual": asyncio.new_event_loop}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test that needs a broker or a Keycloak. With several processes, put long tests first: none is left with one."""
    for item in items:
        if "kafka_jars" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)
        if "keycloak" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.keycloak)
    if hasattr(config, "workerinput"):
        items.sort(key=_length, reverse=True)


def _length(item: pytest.Item) -> tuple[float, ...]:
    """How long a test may take, to compare: by its own timeout, then by what is started for it."""
    timeout, fixtures = item.get_closest_marker("timeout"), getattr(item, "fixturenames", ())
    started = (
        "keycloak" in fixtures,
        "own_kafka" in fixtures,
        "kafka" in item.keywords,
        "acceptance" in item.path.parts,
    )
    return (timeout.args[0] if timeout else 0, *started)


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
def openssl() -> None:
    """What makes certificates: `tests.certificates`. Without it a test is skipped; with REQUIRE_KAFKA=1 it fails."""
    if shutil.which("openssl") is None:
        missing = "openssl is not installed: it makes the certificates of these tests"
        if os.environ.get("REQUIRE_KAFKA") == "1":
            pytest.fail(f"REQUIRE_KAFKA=1, but {missing}")
        pytest.skip(missing)


@pytest.fixture(scope="session")
def kafka(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Broker:
    """A broker that all tests share: take `tests.kafka.unique` names, and don't stop it."""
    return _shared_by_all(pytestconfig, tmp_path_factory, "kafka", Broker)


@pytest.fixture
def own_kafka(kafka_jars: Path, tmp_path: Path) -> Iterator[Broker]:
    """A broker of one's own, to be killed and started again."""
    with started(Broker(tmp_path / "kafka", properties=BACK_SOON)) as broker:
        yield broker


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> keycloaks.Server:
    """A Keycloak that all tests share: each takes a realm of its own.

    Without Java or Maven a test is skipped; with REQUIRE_KEYCLOAK=1 it fails.
    """
    try:
        keycloaks.distribution()
    except ServerMissing as missing:
        if os.environ.get("REQUIRE_KEYCLOAK") == "1":
            pytest.fail(f"REQUIRE_KEYCLOAK=1, but {missing}")
        pytest.skip(str(missing))
    return _shared_by_all(pytestconfig, tmp_path_factory, "keycloak", keycloaks.Server)


def _shared_by_all(
    config: pytest.Config, folders: pytest.TempPathFactory, name: str, make: Callable[[Path], _Server]
) -> _Server:
    """One server for all xdist workers. It ends after the session: no test's time is spent on waiting for other workers."""
    own = folders.getbasetemp()
    sharing = contextlib.ExitStack()
    config.add_cleanup(sharing.close)
    return sharing.enter_context(shared((own.parent if hasattr(config, "workerinput") else own) / name, make))

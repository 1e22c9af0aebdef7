"""Which log a URL means, and what is said to one that means none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from usher.eventlog import open_browser, open_log
from usher.eventlog.port import LogConfig

CONFIG = LogConfig(group="usher", topics=("identity.events",))


async def test_three_slashes_are_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sqlite:///usher.db lies in the working directory."""
    monkeypatch.chdir(tmp_path)

    async with open_browser("sqlite:///usher.db", CONFIG) as browser:
        await browser.append("identity.events", None, b"1")

    assert (tmp_path / "usher.db").exists()


async def test_four_slashes_are_an_absolute_path(tmp_path: Path) -> None:
    """sqlite:////var/lib/usher.db lies where it says."""
    async with open_browser(f"sqlite:///{tmp_path}/deep.db", CONFIG) as browser:
        await browser.append("identity.events", None, b"1")

    assert (tmp_path / "deep.db").exists()


@pytest.mark.parametrize(
    "url",
    [
        "usher.db",
        "",
        "postgres://db",
        "sqlite://usher.db",
        "sqlite:///",
        "sqlite:///folder/",
        "sqlite:///:memory:",
        "kafka://",
        "kafka://broker",
        "kafka://broker:9092,",
        "kafka://broker:port",
    ],
)
def test_a_url_of_no_log_is_refused_with_the_way_out(url: str) -> None:
    """The refusal shows how the URL of a log is written."""
    for open_it in (open_log, open_browser):
        with pytest.raises(ValueError, match=r"write sqlite:///usher\.db"):
            open_it(url, CONFIG)


def test_a_password_in_the_url_is_not_repeated() -> None:
    """Credentials that were written into the URL do not appear in the refusal."""
    with pytest.raises(ValueError, match="USHER_KAFKA__") as caught:
        open_log("kafka://ada:s3cret@broker:9092", CONFIG)

    assert "s3cret" not in str(caught.value)


def test_the_embedded_log_does_without_kafka() -> None:
    """Opening the embedded log does not import Kafka's client."""
    code = (
        "import sys; from usher.eventlog.port import LogConfig; from usher.eventlog import open_log;"
        "open_log('sqlite:///usher.db', LogConfig('usher', ('t',))); print('aiokafka' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "False\n"

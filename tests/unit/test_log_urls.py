"""Which log `USHER_EVENT_LOG` means, and what is said to a value that means none."""

from __future__ import annotations

from pathlib import Path

import pytest

from usher.addresses import KafkaAddress, SqliteAddress, log_address
from usher.eventlog import open_browser
from usher.eventlog.port import LogConfig
from usher.settings import Settings, SettingsError

CONFIG = LogConfig(group="usher", topics=("identity.events",))


def load(log: str) -> Settings:
    return Settings.load({"USHER_EVENT_LOG": log}, env_file=None)


def refused(log: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(log)
    (problem,) = caught.value.problems
    return problem


async def test_three_slashes_are_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sqlite:///usher.db lies in the working directory."""
    monkeypatch.chdir(tmp_path)

    async with open_browser(load("sqlite:///usher.db").event_log, CONFIG, create=True) as browser:
        await browser.append("identity.events", None, b"1")

    assert (tmp_path / "usher.db").exists()


async def test_four_slashes_are_an_absolute_path(tmp_path: Path) -> None:
    """sqlite:////var/lib/usher.db lies where it says."""
    async with open_browser(load(f"sqlite:///{tmp_path}/deep.db").event_log, CONFIG, create=True) as browser:
        await browser.append("identity.events", None, b"1")

    assert (tmp_path / "deep.db").exists()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("sqlite:///usher.db", SqliteAddress(Path("usher.db"))),
        ("sqlite:////var/lib/usher.db", SqliteAddress(Path("/var/lib/usher.db"))),
        ("kafka://broker:9092", KafkaAddress(("broker:9092",))),
        ("kafka://a.example.com:1,127.0.0.1:2,[::1]:3", KafkaAddress(("a.example.com:1", "127.0.0.1:2", "[::1]:3"))),
    ],
)
def test_an_address_is_shown_as_it_is_written(url: str, address: SqliteAddress | KafkaAddress) -> None:
    """`usher check` and the log line `ready` show what an operator can set again."""
    assert log_address(url) == address
    assert str(address) == url


@pytest.mark.parametrize(
    "url",
    [
        "usher.db",
        "postgres://db",
        "sqlite://usher.db",
        "sqlite:///",
        "sqlite:///folder/",
        "sqlite:///:memory:",
        "sqlite:///usher.db?mode=ro",
        "kafka://",
        "kafka://broker",
        "kafka://broker:9092,",
        "kafka://broker:port",
        "kafka://broker:0",
        "kafka://ann@broker:9092",
        "kafka://a..b:9092",
        "kafka://bro ker:9092",
    ],
)
def test_what_is_no_log_is_refused_with_the_way_out(url: str) -> None:
    """The refusal shows how a log is written."""
    assert "sqlite:///usher.db" in refused(url)


def test_a_file_that_could_not_be_made_is_refused(tmp_path: Path) -> None:
    """A folder of that name; a folder that is missing, which may be a volume that was not mounted; a name that is too long."""
    assert "there is a folder of that name" in refused(f"sqlite:///{tmp_path}")
    assert f"there is no {tmp_path}/data; create it or mount it" in refused(f"sqlite:///{tmp_path}/data/usher.db")
    assert "File name too long" in refused(f"sqlite:///{tmp_path}/{'u' * 300}")


def test_a_password_in_the_url_is_not_repeated() -> None:
    """Credentials that were written into the URL do not appear in the refusal, which says where they go."""
    problem = refused("kafka://ada:s3cret@broker:9092")

    assert "s3cret" not in problem
    assert "USHER_KAFKA__" in problem

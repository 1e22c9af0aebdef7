"""Log lines: what they hold, and what they never hold."""

import io
import json
import logging
from datetime import datetime
from typing import Any

import pytest
import structlog

from usher.logs import configure
from usher.redact import Ours

ADDRESS = "mallory.quint@example.org"
PHONE = "+44 7700 900123"
KEY = "SG.aaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbb"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail() -> None:
    password = "correct horse battery"  # a local that a traceback with variables would show
    try:
        raise ValueError(f"bad recipient {ADDRESS} ({PHONE})")
    except ValueError as error:
        raise RuntimeError(f"token={KEY} refused after {len(password)}") from error


def test_a_line_is_one_json_object_with_time_and_level() -> None:
    """A machine reads it: ISO time in UTC, level, the event's words, and the fields that were bound."""
    stream = io.StringIO()
    configure("info", "auto", stream)

    structlog.get_logger().bind(handler="welcome_email", attempt=2).info("message sent", channel="email")

    (line,) = lines(stream)
    stamp = datetime.fromisoformat(line.pop("timestamp"))
    assert stamp.utcoffset() is not None
    assert line == {
        "level": "info",
        "event": "message sent",
        "handler": "welcome_email",
        "attempt": 2,
        "channel": "email",
    }


def test_on_a_terminal_it_is_readable() -> None:
    """`auto` looks at the stream; a person gets no JSON."""
    stream = Terminal()
    configure("info", "auto", stream)

    structlog.get_logger().info("message sent", channel="email")

    assert "message sent" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


@pytest.mark.parametrize("format_", ["json", "console"])
def test_addresses_and_secrets_do_not_survive(format_: Any) -> None:
    """In no field, nested or not, in no exception text, and not as the value of a variable in a traceback."""
    stream = io.StringIO()
    configure("debug", format_, stream)
    logger = structlog.get_logger()

    logger.info("to %s", ADDRESS, to=ADDRESS, deep={"list": [PHONE, {"k": KEY}]}, error=ValueError(f"no {ADDRESS}"))
    try:
        fail()
    except RuntimeError:
        logger.exception("it broke")
        logging.getLogger("aiosmtplib").exception("could not send to %s", ADDRESS)

    text = stream.getvalue()
    assert "it broke" in text
    assert "could not send to <email>" in text
    for secret in (ADDRESS, "mallory", "7700", "900123", KEY, "horse"):
        assert secret not in text


def test_an_error_is_logged_with_type_text_and_places() -> None:
    """The chain from the last error to the first, each with where it passed."""
    stream = io.StringIO()
    configure("info", "json", stream)

    try:
        fail()
    except RuntimeError as error:
        structlog.get_logger().error("it broke", exc_info=error)

    last, first = lines(stream)[0]["exception"]
    assert (last["type"], last["message"]) == ("RuntimeError", "token=<secret> refused after 21")
    assert (first["type"], first["message"]) == ("ValueError", "bad recipient <email> (<number>)")
    assert last["frames"][-1].endswith(" in fail")
    assert "test_logs.py:" in last["frames"][-1]


def test_an_error_in_a_group_of_tasks_is_logged_as_itself() -> None:
    """A group's own text only counts its errors."""
    stream = io.StringIO()
    configure("info", "json", stream)

    structlog.get_logger().error("it broke", exc_info=ExceptionGroup("tasks", [KeyError("the cause")]))

    assert [link["type"] for link in lines(stream)[0]["exception"]] == ["ExceptionGroup", "KeyError"]


def test_an_id_that_is_all_digits_stays_readable() -> None:
    """Identifiers and places are ours: masking them would make the log useless."""
    stream = io.StringIO()
    configure("info", "json", stream)
    ours = {
        "event_id": "0000000001234567",
        "topic": "t",
        "offset": 12345678,
        "http": "127.0.0.1:8080",
        "event_log": "kafka://192.168.100.200:9092",
    }

    structlog.get_logger().info("parked", **ours)

    assert ours.items() <= lines(stream)[0].items()


def test_libraries_are_heard_from_warning_on_and_ours_from_the_level() -> None:
    """What a client library finds worth an info is noise in a service; our own modules follow the level."""
    stream = io.StringIO()
    configure("debug", "json", stream)

    logging.getLogger("some.library").info("joined")
    logging.getLogger("some.library").warning("heartbeat failed for %s", "group")
    logging.getLogger("usher.eventlog").info("works again")

    assert [(line["logger"], line["event"]) for line in lines(stream)] == [
        ("some.library", "heartbeat failed for group"),
        ("usher.eventlog", "works again"),
    ]


def test_below_the_level_nothing_is_done() -> None:
    """A debug line that nobody wants costs no rendering."""
    stream = io.StringIO()
    configure("info", "json", stream)

    class Costly:
        def __str__(self) -> str:
            raise AssertionError("rendered")

    structlog.get_logger().debug("filtered", value=Costly())

    assert stream.getvalue() == ""


def test_a_second_configuration_replaces_the_first() -> None:
    """Each library line appears once, on the last stream."""
    first, second = io.StringIO(), io.StringIO()
    configure("info", "json", first)
    configure("info", "json", second)

    logging.getLogger("asyncio").error("trouble")

    assert first.getvalue() == ""
    assert len(lines(second)) == 1


def test_a_line_of_log_holds_nothing_unseen() -> None:
    """Who reads the raw file is not misled either; a program reads the id as it is."""
    stream = io.StringIO()
    configure("info", "json", stream)
    id_ = "a\x9b\u202eb\u2028c\x85d\x7f"

    structlog.get_logger().info("stored", event_id=id_)

    assert stream.getvalue().rstrip("\n").isprintable()
    assert lines(stream)[0]["event_id"] == id_


def test_a_field_that_is_named_like_a_credential_is_masked() -> None:
    """At any depth; a flag or a number says nothing."""
    stream = io.StringIO()
    configure("info", "json", stream)

    structlog.get_logger().info(
        "calling", token="abcdef", request={"headers": {"X-Api-Key": "abcdef"}}, password=True, code=503
    )

    (line,) = lines(stream)
    assert line["token"] == "<secret>"
    assert line["request"] == {"headers": {"X-Api-Key": "<secret>"}}
    assert (line["password"], line["code"]) == (True, 503)


def test_what_an_operator_pastes_is_whole() -> None:
    """A text of ours keeps addresses, offsets and paths."""
    stream = io.StringIO()
    configure("info", "json", stream)
    command = (
        "kafka-topics.sh --bootstrap-server 127.0.0.1:41279 --topic identity.events --partitions 12 --offset 12345678"
    )

    structlog.get_logger().error("topics are not as they must be", error=Ours(command))

    assert lines(stream)[0]["error"] == command


def test_the_place_where_the_loop_is_blocked_is_shown_on_a_terminal() -> None:
    """The watchdog's line has a list of places; it must not end the watchdog."""
    stream = Terminal()
    configure("info", "console", stream)

    structlog.get_logger().warning("blocked", stack=["a.py:1 in f", "b.py:2 in g"])

    assert "a.py:1 in f" in stream.getvalue()
    assert "b.py:2 in g" in stream.getvalue()

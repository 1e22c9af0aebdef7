"""The parts of the benchmark: statistics, the comparison with goals, the page, the picture, its mails. Nothing is timed."""

from __future__ import annotations

import asyncio
import json
import math
import xml.etree.ElementTree as ET

from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import Mail as Payload
from tests.bench.bare_mail import KEY, LOGIN_URL, SERVICE, BareMails
from tests.bench.children.provider import Connection
from tests.bench.contenders import LANES, PARALLEL, USHER
from tests.bench.job import Job, Run
from tests.bench.outcome import Outcome, Rates
from tests.bench.picture import picture
from tests.bench.records import OURS, mix, people, record
from tests.bench.report import page
from tests.measures import Measure, goals
from tests.stats import median, percentile, ratio

from usher.channels.templates import Brand, Templates, template_folders
from usher.systems.decode import decode
from usher_handlers.welcome_email import welcome_email

_RATES = Rates("handler of 1 ms", {USHER: 30_000.0, LANES: 60_000.0}, {USHER: 90.0, LANES: 75.0}, {USHER: 43.2})


def test_a_percentile_is_one_of_the_values() -> None:
    """The smallest that the share does not exceed; there is none of nothing."""
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert percentile([7.0], 0.01) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    """Somebody who did not take part leaves a nan, and it stays one."""
    assert math.isnan(ratio(median([]), 2.0))
    assert math.isnan(ratio(1.0, 0.0))
    assert Measure("w", "of FastStream", math.nan, 8.0, at_least=True).reached is None


def test_a_goal_is_reached_on_its_own_side() -> None:
    """Some are to be reached, others not to be exceeded."""
    assert Measure("w", "ratio", 0.7, 0.7, at_least=True).reached is True
    assert Measure("w", "ratio", 0.69, 0.7, at_least=True).reached is False
    assert Measure("w", "late", 1.1, 1.0, " s").reached is False
    assert Measure("w", "early", 0, 0).reached is True


def test_the_table_says_what_is_missed() -> None:
    """A row has the work, what was measured, the figure and the goal with their unit, and the verdict."""
    head, _, row = goals([Measure("parked", "memory", 250.4, 200, " MB")]).splitlines()
    assert head == "| work | what | measured | goal | reached |"
    assert row == "| parked | memory | 250 MB | ≤ 200 MB | **no** |"


def test_the_page_names_everything() -> None:
    """Rates, memory, CPU, notes, who did not take part, and where it was measured."""
    outcome = Outcome([Measure("w", "rate", 30_000, 30_000, "/s", at_least=True)], _RATES, ["a call takes 3 ms"])
    text = page([outcome], about={"cores": "2 of Some CPU"}, missing={"FastStream": "no network"}, picture="p.svg")
    for piece in (
        "| Usher | 30,000 |",
        "| Usher | 90 |",
        "| Usher | 43 |",
        "- a call takes 3 ms.",
        "no network",
        "2 of Some CPU",
        "(p.svg)",
    ):
        assert piece in text
    assert "| parallel-consumer |" not in text


def test_the_picture_has_a_bar_for_each_rate_in_proportion() -> None:
    """It is well-formed, and twice the rate is twice the length."""
    root = ET.fromstring(picture([_RATES, Rates("x < 1", {PARALLEL: 5.0}, {})], "2 cores & more"))
    bars = [float(each.get("width", "")) for each in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert len(bars) == 3
    assert bars[1] == 2 * bars[0]


def test_the_records_are_what_the_page_says() -> None:
    """About 1.3 kB, every twentieth ours, keyed by user, each another event."""
    pairs = list(mix(200, at=1_700_000_000.5, share=0.05))
    events = [decode(value) for _, value in pairs]
    assert all(1_250 < len(value) < 1_350 for _, value in pairs)
    assert sum(event.context.triggered_by == OURS for event in events) == 10
    assert [key.decode() for key, _ in pairs] == [event.user.id for event in events]
    assert len({event.uid for event in events}) == 200


def test_a_job_and_a_run_survive_the_way() -> None:
    """The orders of a child and its answers are lines of JSON."""
    job = Job("127.0.0.1:1", "topic", "group", "folder", work=0.05, options={"rate": 2.0})
    assert Job.loads(job.dumps()) == job
    run = Run(1, 2, 0.5, 60.0, cpu=0.25)
    assert Run.loads('{"read": 1, "handled": 2, "seconds": 0.5, "memory": 60.0, "cpu": 0.25}') == run
    assert math.isnan(Run.loads('{"read": 1, "handled": 2, "seconds": 0.5, "memory": 60.0}').cpu)


def test_the_people_of_the_real_job_have_addresses_and_languages_of_their_own() -> None:
    """No two share an address, and both languages are spoken."""
    events = [decode(value) for _, value in people(10, at=1_700_000_000.5)]
    assert len({event.user.email for event in events}) == len({event.user.id for event in events}) == 10
    assert {event.languages for event in events} == {("en",), ("de",)}


def test_the_bare_sender_sends_what_usher_sends() -> None:
    """Subject, text and HTML are the same, in both languages: like is compared with like."""
    templates = Templates(template_folders([welcome_email]), brand=Brand(SERVICE, LOGIN_URL, LOGIN_URL))
    mails = BareMails()
    for _, value in people(2, at=1_700_000_000.5):
        event, bare = decode(value), mails.of(json.loads(value))
        mail = templates.mail("welcome_email", event, variables={"link": None})
        assert bare is not None
        assert (bare.to, bare.subject, bare.text, bare.html) == (
            event.user.email,
            mail.subject,
            mail.text,
            mail.html,
        )


def test_the_bare_sender_leaves_out_what_no_administrator_did() -> None:
    """Its filter is Usher's."""
    assert BareMails().of(json.loads(record(1, 1, at=1_700_000_000.5, ours=False)[1])) is None


async def test_the_double_accepts_what_the_package_sends() -> None:
    """A real request of SendGrid's own client is answered with 202."""
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Connection(0.0), "127.0.0.1", 0) as server:
        client = SendGridAPIClient(KEY, host=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        answer = await asyncio.to_thread(client.send, Payload("a@example.org", "b@example.org", "Hi", "Hello"))
    assert answer.status_code == 202

"""The parts of the benchmark: statistics, the comparison with goals, the page, the picture, its mails. Nothing is timed."""

from __future__ import annotations

import asyncio
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import Mail as Payload
from tests.bench.__main__ import _chosen
from tests.bench.bare_mail import KEY, LOGIN_URL, SERVICE, BareMails
from tests.bench.children.provider import Connection
from tests.bench.contenders import LANES, PARALLEL, USHER, USHER_BEFORE
from tests.bench.job import Job, Run
from tests.bench.kept import Kept, Part
from tests.bench.outcome import Growth, Outcome, Point, Rates
from tests.bench.picture import picture, picture_of_growth
from tests.bench.reasons import MISSED
from tests.bench.records import OURS, grown, mix, people, record
from tests.bench.report import page, with_short_form
from tests.bench.workloads.growth import grown_by
from tests.measures import Measure, goals
from tests.stats import median, percentile, ratio

from usher.channels.templates import Brand, Templates, template_folders
from usher.systems.decode import decode
from usher_handlers.welcome_email import welcome_email

_RATES = Rates(
    "handler of 1 ms",
    {USHER.name: 30_000.0, LANES.name: 60_000.0},
    {USHER.name: 90.0, LANES.name: 75.0},
    {USHER.name: 43.2},
)
_MAILS = Rates(
    "provider 50 ms",
    {USHER.name: 1_400.0, USHER_BEFORE.name: 900.0},
    {USHER.name: 111.0, USHER_BEFORE.name: 165.0},
    {USHER.name: 515.0, USHER_BEFORE.name: 766.0},
    "message",
)
_GROWTH = Growth("users", "record", [Point("1,000", 20_000.0, 50.0, 110.0), Point("100,000", 19_000.0, 51.0, 112.0)])


def _page(outcomes: Sequence[Outcome]) -> str:
    return page(
        outcomes,
        about={"cores": "2 of Some CPU"},
        missing={"FastStream": "no network"},
        picture="p.svg",
        growth="g.svg",
    )


def _bars(svg: str) -> list[float]:
    """Their lengths; the first rectangle is the background."""
    rectangles = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect")
    return [float(each.get("width", "")) for each in rectangles][1:]


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
    outcome = Outcome(
        [Measure("w", "rate", 30_000, 30_000, "/s", at_least=True)], _RATES, ["a call takes 3 ms"], _GROWTH
    )
    text = _page([outcome])
    for piece in (
        "| Usher | 30,000 |",
        "| Usher | 90 |",
        "| Usher | 43 |",
        "- a call takes 3 ms.",
        "no network",
        "2 of Some CPU",
        "(p.svg)",
        "(g.svg)",
        "| users | 100,000 | record | 19,000 | 51 | 112 |",
    ):
        assert piece in text
    assert "| parallel-consumer |" not in text


def test_the_picture_has_a_bar_for_each_rate_in_proportion() -> None:
    """It is well-formed, and twice the rate is twice the length."""
    bars = _bars(picture([_RATES, Rates("x < 1", {PARALLEL.name: 5.0}, {})], "2 cores & more"))
    assert len(bars) == 3
    assert bars[1] == 2 * bars[0]


def test_in_the_picture_of_growth_a_unit_of_twice_the_cost_has_twice_the_bar() -> None:
    """Linear growth is bars of one length."""
    points = [Point("1", 1.0, 20.0, 1.0), Point("3", 1.0, 20.0, 1.0), Point("10", 1.0, 40.0, 1.0)]
    bars = _bars(picture_of_growth([Growth("handlers", "delivery", points)], "2 cores & more"))
    assert bars == [bars[0], bars[0], 2 * bars[0]]


def test_growth_with_the_square_is_not_linear() -> None:
    """A unit that costs as much at each size is; one whose cost grows with the size is not."""
    [linear] = grown_by("users", "record", _GROWTH.points).measures
    [square] = grown_by("users", "record", [Point("1", 1.0, 5.0, 1.0), Point("10", 1.0, 50.0, 1.0)]).measures
    assert (linear.reached, square.reached) == (True, False)


def test_the_readme_shows_the_real_job_first() -> None:
    """Its short form is the page's two tables of rates, and replaces what was between the marks."""
    text = _page([Outcome(rates=_RATES), Outcome(rates=_MAILS)])
    readme = with_short_form("a\n<!-- benchmarks -->\nold\n<!-- /benchmarks -->\nz\n", text)
    lines = readme.splitlines()
    assert lines[2].startswith("|  | provider 50 ms: messages/s | CPU a message, µs |")
    assert lines[4:8] == ["| Usher | 1,400 | 515 | 111 |", "", "|  | handler of 1 ms |", "| --- | --- |"]
    assert lines[-2:] == ["<!-- /benchmarks -->", "z"]
    assert "old" not in lines
    assert f"| {USHER_BEFORE.title} | 900 | 766 | 165 |" in text


def test_a_missed_goal_has_its_reason_on_the_page() -> None:
    """The page quotes the reason that is known, and says where none is."""
    missed = Measure("w", "rate", 1, 2, "/s", at_least=True)
    assert "- w, rate: the reason is not known yet." in _page([Outcome([missed])])
    assert "## What is missed" not in _page([Outcome([Measure("w", "rate", 2, 1, "/s", at_least=True)])])


def test_every_known_reason_is_of_a_row() -> None:
    """A reason whose row was renamed would not be quoted."""
    rows = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text().splitlines()
    assert all(any(row.startswith(f"| {work} | {what} |") for row in rows) for work, what in MISSED)


def test_parts_of_a_run_count_together_while_the_code_is_the_same(tmp_path: Path) -> None:
    """What was measured of other code is not there, and what is kept comes back as it was."""
    part = Part(
        Outcome([Measure("w", "rate", math.inf, 1.0)], _RATES, ["a note"], _GROWTH), 12.5, {"FastStream": "gone"}
    )
    Kept(tmp_path / "bench", "this code").keep("filter", part)
    found = Kept(tmp_path / "bench", "this code").parts(["mail-50", "filter"])
    assert list(found) == ["filter"]
    assert repr(found["filter"]) == repr(part)  # a nan is not equal to itself
    assert Kept(tmp_path / "bench", "other code").parts(["filter"]) == {}


def test_a_name_of_a_workload_is_that_workload_alone() -> None:
    """`handler-1` is not `handler-10`; a beginning is all that begin so."""
    assert _chosen(["handler-1", "mail"]) == ["mail-50", "mail-200", "handler-1"]


def test_a_record_grows_to_the_size_that_was_asked_for() -> None:
    """It stays an event of ours, of the same user."""
    key, value = grown(record(1, 1, at=1_700_000_000.5), 18_700)
    assert 19_000 < len(value) < 20_100
    event = decode(value)
    assert (event.user.id, event.context.triggered_by) == (key.decode(), OURS)
    assert len(event.payload["history"]) > 100


def test_a_figure_without_a_goal_is_shown_and_not_judged() -> None:
    """Beside it a goal may have an aim."""
    shown, judged = goals(
        [
            Measure("w", "of lanes", 0.9, math.nan, at_least=True),
            Measure("w", "of a loop", 0.9, 1.0, at_least=True, aim=1.1),
        ]
    ).splitlines()[2:]
    assert shown == "| w | of lanes | 0.9 |  |  |"
    assert judged == "| w | of a loop | 0.9 | ≥ 1 (aim: 1.1) | **no** |"


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

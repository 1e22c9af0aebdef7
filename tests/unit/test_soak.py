"""The pure parts of the soak: how memory grows, what counts as missed, and the page. Each can say no."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.chaos.fleet import Fleet, Worker
from tests.chaos.judge import Findings
from tests.chaos.provider import Attempt
from tests.measures import Measure
from tests.soak.__main__ import PAGE, PHASES
from tests.soak.memory import MB, Memory, Sample, read, slope
from tests.soak.page import SHOWN, with_figures
from tests.soak.phases import back_after
from tests.soak.stand import Options, Played, judged
from tests.soak.webhooks import SECRET, Webhooks

from usher.systems.authgear.source import AuthgearSource

ABOUT = {name: f"the {name}" for name in SHOWN}


def samples(*own: float, every: float = 60.0) -> list[Sample]:
    """One sample each minute; what is read again is always as much."""
    return [Sample(at=number * every, own=int(mb * MB), resident=900 * MB) for number, mb in enumerate(own)]


def test_memory_that_grows_has_a_slope() -> None:
    """A megabyte a minute is that, whatever is resident beside it."""
    assert slope(samples(*range(50, 61))) == pytest.approx(1.0)


def test_what_grows_at_the_start_alone_has_no_slope() -> None:
    """Caches fill; only the last half counts."""
    assert slope(samples(10, 30, 50, 60, 65, 65, 65, 65, 65, 65, 65)) == pytest.approx(0.0)


def test_what_starts_to_grow_late_has_a_slope() -> None:
    """A flat start does not hide a leak."""
    assert slope(samples(*[50] * 10, *range(51, 61))) > 0.9


def test_noise_is_no_slope() -> None:
    """Up and down by a megabyte, over hundreds of samples, stays far below the goal."""
    rng = random.Random(3)
    assert abs(slope(samples(*[60 + rng.uniform(-1, 1) for _ in range(400)], every=3.0))) < 0.1


def test_the_fleet_grows_as_its_worst_worker() -> None:
    """One worker that leaks is not hidden by two that do not."""
    memory = Memory({1: samples(*[50] * 9), 2: samples(*range(50, 59)), 3: samples(*[50] * 9)})
    assert memory.slope == pytest.approx(1.0)
    assert memory.peak == 900


def test_own_memory_is_what_linux_calls_anonymous() -> None:
    """Fields are read by name; the line of addresses is passed over."""
    rollup = "00400000-7fff [rollup]\nRss:  70000 kB\nPss_Anon:  5 kB\nAnonymous:   61000 kB\nTHPeligible:  0\n"
    assert read(rollup) == {"Rss": 70_000, "Pss_Anon": 5, "Anonymous": 61_000}


def verdict(**found: object) -> Played:
    webhooks = Webhooks(Fleet([]), random.Random(1))
    return judged("kills", Findings(**found), webhooks)  # type: ignore[arg-type]


def test_a_run_in_which_nothing_is_broken_misses_nothing() -> None:
    """Repeats are counted and do not fail it."""
    played = verdict(events=10, deliveries=20, delivered=20, repeats_unexplained=["one"])
    assert played.missed == []
    assert "20 deliveries owed; 1 repeats, 1 of them" in played.notes[0]


@pytest.mark.parametrize("broken", ["lost", "order", "twice", "not_ours", "dead_letters_unexpected", "wrong"])
def test_each_broken_promise_is_missed(broken: str) -> None:
    """And the case is in the notes, in words."""
    played = verdict(**{broken: ["e1 of ann"]})
    assert len(played.missed) == 1
    assert "e1 of ann" in played.notes


def test_what_could_not_be_measured_is_missed() -> None:
    """No delivery after the outage is no good news."""
    assert math.isnan(back_after([], 10.0, 20.0))
    played = Played([Measure("outage", "back", math.nan, 30.0), Measure("outage", "down", 45.0, 45.0, at_least=True)])
    assert [each.what for each in played.missed] == ["back"]


def test_what_was_under_way_before_an_outage_is_not_its_end() -> None:
    """A worker repeats what it had in hand without the broker; only what is new shows that it reads again."""

    def attempt(event: str, began: float) -> Attempt:
        return Attempt(handler="welcome", user="ann", sequence=0, event=event, pid=1, began=began)

    attempts = [attempt("old", 9.0), attempt("old", 21.0), attempt("new", 24.0), attempt("newer", 23.0)]
    assert back_after(attempts, 10.0, 20.0) == 3.0


def test_a_run_replaces_the_figures_of_the_phases_that_it_played() -> None:
    """The others, and the words around, stay as they are."""
    page = "before\n<!-- soak: kills -->\nold\n<!-- /soak: kills -->\nbetween\n<!-- soak: steady -->\nkept\n<!-- /soak: steady -->\n"
    played = Played([Measure("kills", "workers killed", 60, 60, at_least=True)], ["1 event"])
    text = with_figures(page, "kills", played, Options(), ABOUT)
    assert "| kills | workers killed | 60 | ≥ 60 | yes |" in text
    assert "- 1 event." in text
    assert "the broker" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith(page.partition("<!-- /soak: kills -->")[2])
    assert with_figures(text, "kills", played, Options(), ABOUT) == text


def test_every_phase_has_its_place_on_the_page() -> None:
    """A phase without marks would be played for nothing."""
    page = PAGE.read_text("utf-8")
    for name in PHASES:
        assert with_figures(page, name, Played([]), Options(), ABOUT) != page
    with pytest.raises(ValueError, match="no marks for sleep"):
        with_figures(page, "sleep", Played([]), Options(), ABOUT)


@pytest.mark.parametrize(
    "less", [Options(kills=59), Options(minutes=9), Options(rate=49), Options(outage=44), Options(flood=0.5)]
)
def test_a_run_that_is_shorter_in_anything_is_shorter(less: Options) -> None:
    """Longer in something else does not make up for it."""
    assert less.shorter_than(Options())
    assert not Options(kills=100, seed=7).shorter_than(Options())


async def test_a_webhook_is_sent_until_a_worker_has_acknowledged_it(tmp_path: Path) -> None:
    """Signed as Authgear signs it; 503 and 202 count as what they are."""
    answers, source = [503, 401, 200], AuthgearSource([SECRET])
    proven = []

    async def ingest(http: web.Request) -> web.Response:
        proven.append(source.verified({name.lower(): value for name, value in http.headers.items()}, await http.read()))
        return web.Response(status=answers.pop(0))

    app = web.Application()
    app.router.add_post("/ingest/authgear", ingest)
    worker = Worker(0, tmp_path, {})
    async with TestServer(app) as server, Fleet([]) as fleet:
        worker.url = str(server.make_url("")).rstrip("/")
        fleet.workers.append(worker)
        webhooks = Webhooks(fleet, random.Random(1))
        await webhooks.post(b"{}")
        fleet.workers.clear()
    assert webhooks.answers == {503: 1, 401: 1, 200: 1}
    assert proven == [True] * 3

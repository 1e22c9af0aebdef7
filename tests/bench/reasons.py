"""Why a goal is missed, in words and with the profile that shows it; the page quotes what stands here about what it has found missed."""

from __future__ import annotations

from collections.abc import Mapping

_FILTER = "filter path, 95 % not ours"
_LEFT_OUT = (
    "of some 8 µs a record the fetching is 4 to 5, as in the bare loop, to leave out what is not ours about 1, and the 5 % that are ours "
    "2 (some 40 µs each); docs/design.md has the stages"
)
_NOTHING_DONE = (
    "of some 40 µs a delivery the peek takes 6, the intake 5, the lane and the end 7, the attempt 6 (docs/design.md); the rest is "
    "fetching, asyncio's tasks and the handler's own sleep, which the lanes have too"
)
_READS = (
    "who asks for a user, a payload or a language has the whole event decoded: 4 µs to read it, 25 to take credentials out of texts that "
    "are new (6 of known ones), 15 to find the fields and check them. To strip and read only the part that is asked for is left to do"
)
_RECEIPTS = (
    "a receipt takes 10 µs and more: it is made, its ids are looked at for addresses, packed, and written before the commit. In the real "
    "job it is hardly seen"
)
_MESSAGE = (
    "most of a message is the request (aiohttp), the templates and the check of the address, of which little has changed; how the rest "
    "is shared out was not measured anew"
)

MISSED: Mapping[tuple[str, str], str] = {
    **{(_FILTER, f"of {peer}"): _LEFT_OUT for peer in ("bare loop", "bare lanes", "parallel-consumer")},
    **{(f"handler of {work} ms", "of bare lanes"): _NOTHING_DONE for work in (0, 1, 10)},
    **{(f"handler of {work} ms", "events"): _NOTHING_DONE for work in (0, 1)},
    **{(f"handler of {work} ms that reads its event", "of bare lanes"): _READS for work in (0, 1, 10, 50, 100)},
    **{(f"handler of {work} ms that reads its event", "of parallel-consumer"): _READS for work in (10, 50, 100)},
    ("handler of 0 ms, with receipts", "of Usher"): _RECEIPTS,
    (
        "start to ready",
        "on Kafka",
    ): "a start checks more than it did (ids and policies of topics, whose records they hold), with requests "
    "one after the other; how much each takes was not measured",
    **{
        (f"welcome_email, provider answers in {answer} ms", "CPU a message, of Usher of 470c7ab"): _MESSAGE
        for answer in (50, 200)
    },
}
"""The reason by the row's work and what; `python -m tests.bench NAME --profile` shows where the time of a workload goes."""

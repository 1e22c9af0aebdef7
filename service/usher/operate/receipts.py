"""The receipts themselves: those that match what an operator asks for, as what became of each delivery."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from usher.eventlog.browse import Browser
from usher.operate.errors import OperateError
from usher.operate.event_traces import EventTrace, receipt_spot
from usher.operate.fates import Fate, of_receipt, uid_of
from usher.operate.progress import ReadingProgress
from usher.operate.receipt_file import IndexDamaged
from usher.operate.receipt_index import ReceiptIndex, ask
from usher.operate.sightings import Sighting
from usher.receipts import Receipt, ended
from usher.receipts.keys import AddressKeys, channel_of
from usher.settings import Settings
from usher.storage import browser as open_browser
from usher.storage import reading_keys

Take = Callable[[EventTrace, Fate], None]
"""Takes what became of one delivery, and of which event."""


@dataclass(frozen=True, slots=True)
class ReceiptChoice:
    """What an operator asks for; a delivery must match all that is given. *since* is in Unix seconds: when it ended."""

    states: Collection[str] = ()
    handler: str | None = None
    user: str | None = None
    since: float = 0.0

    def takes(self, fate: Fate) -> bool:
        """Return whether the delivery matches; the user is left aside."""
        return (
            (not self.states or fate.state in self.states)
            and self.handler in {None, fate.handler}
            and fate.at >= self.since * 1000
        )


async def read_receipts(
    settings: Settings, choice: ReceiptChoice, take: Take, progress: ReadingProgress | None = None
) -> None:
    """Give each delivery that matches to *take*, in the event log that the settings name: as it is found, those of an event together.

    Raises:
        LogUnavailable, LogMisconfigured, OperateError
    """
    async with open_browser(settings) as browser:
        await read(settings, browser, choice, take, progress or ReadingProgress())


async def read(
    settings: Settings, browser: Browser, choice: ReceiptChoice, take: Take, progress: ReadingProgress
) -> None:
    """As `read_receipts`, in the event log of *browser*."""
    keys = None if choice.user is None else await reading_keys(settings, browser)

    async def answer(index: ReceiptIndex) -> None:
        given = 0
        try:
            for receipts in _events(index, choice, keys):
                for event, fate in _fates(receipts):
                    if choice.takes(fate):
                        take(event, fate)
                        given += 1
                progress.read("receipts", given)
        except IndexDamaged as error:
            if not given:
                raise
            raise OperateError(
                "the index of receipts was damaged meanwhile, and is made anew: run this again"
            ) from error

    await ask(settings, browser, progress, answer)


def _events(index: ReceiptIndex, choice: ReceiptChoice, keys: AddressKeys | None) -> Iterable[list[Receipt]]:
    if choice.user is None:
        yield from index.events(int(choice.since * 1000))
        return
    user = choice.user
    about = index.of_user({user, *(keys.all_kept(user) if keys is not None else ())})
    if keys is not None:
        about += index.of_address(keys.hmacs(user, channel_of(user)))
    for id_ in sorted({receipt.event_id for receipt in about}):
        uids = {uid_of(receipt) for receipt in about if receipt.event_id == id_}
        yield [receipt for receipt in index.of_events([id_]) if uid_of(receipt) in uids]


def _fates(receipts: Iterable[Receipt]) -> Iterator[tuple[EventTrace, Fate]]:
    for each in ended(receipts):
        last = each.receipt
        spot = receipt_spot(last)
        event = EventTrace(uid_of(last), last.type, last.user_id, last.username, last.stored_at, [spot])
        yield event, of_receipt(Sighting(*spot, last.stored_at, event.uid, None), each)

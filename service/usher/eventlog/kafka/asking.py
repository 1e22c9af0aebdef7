"""The clients that only ask: for topics, for what may be read, and for what there is. Those of one log start and stop together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from usher.eventlog.kafka.client import Clients, bounded, stop


@dataclass(frozen=True, slots=True)
class Asking:
    """*reader* sees what is committed; *measurer* sees what an open transaction holds, too."""

    admin: AIOKafkaAdminClient
    reader: AIOKafkaConsumer
    measurer: AIOKafkaConsumer

    @classmethod
    async def start(cls, clients: Clients) -> Self:
        """Make them and start them. Where one fails, stop those that were started.

        Raises:
            KafkaError, TimeoutError
        """
        asking = cls(clients.admin(), clients.reader(), clients.reader(committed=False))
        try:
            await asking.admin.start()
            await asking.reader.start()
            await asking.measurer.start()
        except BaseException:
            await asking.stop()
            raise
        return asking

    async def stop(self) -> None:
        """Stop them. Takes some seconds at most."""
        await stop(self.reader)
        await stop(self.measurer)
        await bounded(self.admin.close())

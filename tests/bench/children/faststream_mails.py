"""FastStream with SendGrid's package, as the two documentations show them: a subscriber in a thread, one message after the other."""

from __future__ import annotations

import asyncio
from typing import Any

from faststream.kafka import KafkaBroker
from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import Mail
from tests.bench.bare_mail import FROM_ADDRESS, FROM_NAME, KEY, BareMails
from tests.bench.job import Job, Run, Stopwatch, child


async def run(job: Job) -> Run:
    watch, mails, loop = Stopwatch(job), BareMails(), asyncio.get_running_loop()
    client = SendGridAPIClient(KEY, host=f"http://127.0.0.1:{job.options['port']:.0f}")
    broker = KafkaBroker(job.servers, logger=None)

    def welcome(event: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(watch.saw, 1)
        if (mail := mails.of(event)) is None:
            return
        client.send(
            Mail(
                from_email=(FROM_ADDRESS, FROM_NAME),
                to_emails=mail.to,
                subject=mail.subject,
                plain_text_content=mail.text,
                html_content=mail.html,
            )
        )
        loop.call_soon_threadsafe(watch.did)

    broker.subscriber(job.topic, group_id=job.group, auto_offset_reset="earliest")(welcome)
    async with broker:
        await broker.start()
        await watch.over.wait()
    return watch.run()


if __name__ == "__main__":
    child(run)

"""Usher at the real job: the bundled `welcome_email` with everything on, and SendGrid's double as its provider."""

from __future__ import annotations

import functools
from dataclasses import replace

from tests.bench.bare_mail import FROM_ADDRESS, FROM_NAME, KEY, LOGIN_URL, SERVICE
from tests.bench.job import Job, Run, Stopwatch, child
from tests.bench.service import on_kafka, serve

from usher import Context, Event
from usher.addresses import MailSender
from usher_handlers.welcome_email import welcome_email


async def run(job: Job) -> Run:
    watch = Stopwatch(job)

    @functools.wraps(welcome_email.function)
    async def counted(event: Event, ctx: Context) -> None:
        await welcome_email.function(event, ctx)
        watch.did()

    app, _ = on_kafka(
        job,
        watch,
        replace(welcome_email, function=counted),
        email="sendgrid",
        sendgrid={"api_key": KEY, "base_url": f"http://127.0.0.1:{job.options['port']:.0f}"},
        mail_from=MailSender(FROM_ADDRESS, FROM_NAME),
        service_name=SERVICE,
        login_url=LOGIN_URL,
        sends_at_once=int(job.options["at_once"]),
    )
    await serve(app, watch.over.wait())
    return watch.run()


if __name__ == "__main__":
    child(run)

"""Two handlers that send the provider double the user, the event and their process id, and believe its answer."""

from __future__ import annotations

import os

from pydantic import BaseModel

from usher import Context, Event, Reject, Retry, on


class Settings(BaseModel):
    """Where the double listens."""

    url: str


async def _send(event: Event, ctx: Context) -> None:
    about = {
        "handler": ctx.handler,
        "user": event.user.id,
        "sequence": event.seq,
        "event": event.id,
        "pid": os.getpid(),
        "attempt": ctx.attempt,
    }
    async with ctx.http.post(ctx.settings.url, json=about) as answer:
        if answer.status == 422:
            raise Reject("the provider refuses it")
        if answer.status >= 400:
            raise Retry(f"the provider answers {answer.status}")


@on("user.created", timeout="4s", settings=Settings)
async def chaos_first(event: Event, ctx: Context) -> None:
    """Call the provider."""
    await _send(event, ctx)


@on("user.created", timeout="4s", settings=Settings)
async def chaos_second(event: Event, ctx: Context) -> None:
    """Call the provider, on a lane of its own."""
    await _send(event, ctx)

"""The settings of HTTP: what callers who have proved nothing yet may hold, and by which proxy others are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from usher.proxies import Proxies
from usher.settings import values
from usher.settings.environment import Environment

ProxyUse = Annotated[
    Proxies, PlainValidator(lambda value: value if isinstance(value, Proxies) else Proxies.parse(str(value)))
]


class HttpLimits(BaseModel):
    model_config = ConfigDict(frozen=True)

    connections: values.Count = Field(
        500,
        description="how many connections are open at once; fewer where the process may open few files. Beyond it a "
        "new one closes the one whose last request began longest ago and is not proven, so health checks are always answered",
    )
    head_timeout: values.Pause = Field(
        10.0, description="how long a new connection may take for the head of its request"
    )
    idle_timeout: values.Pause = Field(
        75.0,
        description="how long a connection may wait between two requests; longer than a proxy before Usher keeps it",
    )
    body_timeout: values.Pause = Field(30.0, description="how long the body of a webhook may take")
    unproven_bytes: values.Count = Field(
        16 * 1024 * 1024,
        description="how many bytes of bodies are held at once whose signature could not be checked yet; beyond it the "
        "oldest one is answered 503",
    )


def take_proxies(found: Environment, given: Mapping[str, str]) -> None:
    """Complete the setting of the proxy from what the environment *given* says to all programs."""
    own = found.values.get("proxy")
    try:
        proxies = Proxies.of_environment(given) if own is None else Proxies.parse(str(own))
    except ValueError as wrong:
        if own is None:  # else the setting is refused as all others are
            found.problems.append(str(wrong))
        return
    if proxies.by_scheme:
        found.put(("proxy",), replace(proxies, bypass=given.get("no_proxy") or given.get("NO_PROXY") or ""))

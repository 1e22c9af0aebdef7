"""The settings of the HTTP server's bounds: what callers who have proved nothing yet may hold."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from usher.settings import values


class HttpLimits(BaseModel):
    model_config = ConfigDict(frozen=True)

    connections: values.Count = Field(
        500,
        description="how many connections are open at once; fewer where the process may open few files. Beyond it a "
        "new one closes the one that has waited longest without a proven request, so health checks are always answered",
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

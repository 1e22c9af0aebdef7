"""The settings of receipts: whether they are written, how long they are kept, and the keys for the HMAC of addresses."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from usher.outcome import seconds
from usher.settings import values

_DAY = 86_400.0
_DECADE = 3_650 * _DAY


def _keep(value: Any) -> float:
    try:
        duration = seconds(value)
    except ValueError:
        duration = 0.0
    if not _DAY <= duration <= _DECADE:
        raise ValueError(f"should be from 1d to {_DECADE / _DAY:g}d, as in 90d")
    return duration


Keep = Annotated[float, BeforeValidator(_keep)]


class ReceiptSettings(BaseModel):
    """The settings of receipts. *on* is ``USHER_RECEIPTS`` itself; the others have names below it."""

    model_config = ConfigDict(frozen=True)

    on: bool = Field(True, description="whether what became of each delivery is written down: `on`, `off`")
    keep: Keep = Field(90 * _DAY, description="how long receipts are kept")
    key: values.Secrets = Field(
        (),
        description="the key of the HMAC that a receipt has in the place of an address; several, comma separated: the first one writes, "
        "all read. Default: one that is kept in the event log",
    )

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The keys that are set, as bytes."""
        return tuple(key.get_secret_value().encode("utf-8", "surrogateescape") for key in self.key)

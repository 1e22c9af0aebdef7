"""The source of Toybox: each webhook is one event, with the key in a header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from usher.event import UNKNOWN
from usher.systems.canonical import text
from usher.systems.source import Arrival, arrival, check_secrets, derive, document_of, equal_to_any, undecoded

from .event_types import RENAMED_TYPES

NAME = "toy"
_ACTORS = {"staff": "admin_api", "self": "user"}


class ToySource:
    name = NAME
    plain = False
    signs_body = False
    refusal = "X-Toy-Key is missing, or is no known key"

    def __init__(self, keys: Sequence[str] = (), tenant: str = "") -> None:
        self._keys, self.tenant = check_secrets(keys), tenant

    def verified(self, headers: Mapping[str, str], body: bytes) -> bool:
        return equal_to_any(self._keys, headers.get("x-toy-key", ""))

    def arrivals(self, body: bytes, headers: Mapping[str, str], received: float) -> Sequence[Arrival]:
        document = document_of(body)
        fields = document if isinstance(document, dict) else {}
        number, what, by = (text(fields.get(name)) for name in ("no", "what", "by"))
        if number is None or what is None:
            return [undecoded(NAME, self.tenant, document, "no event: it has no number, or does not say what happened")]
        who = fields["who"] if isinstance(fields.get("who"), dict) else {}
        event = derive(
            NAME,
            fields,
            id=number,
            type=RENAMED_TYPES.get(what, what),
            raw_type=what,
            tenant=self.tenant,
            triggered_by=_ACTORS.get(by or "", UNKNOWN),
            basis="by: Toybox says who did it",
            timestamp=fields.get("at"),
            user={"id": text(who.get("id")), "username": text(who.get("nick")), "email": text(who.get("mail"))},
        )
        return [arrival(event)]

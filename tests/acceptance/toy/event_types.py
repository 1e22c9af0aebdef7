"""The event types of Toybox."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED_TYPES: Mapping[str, str] = {"made": "user.created"}
EVENT_TYPES = frozenset(("user.created", "lent"))

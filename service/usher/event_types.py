"""The catalogue of event types: the canonical ones, and the raw names of each identity system.

Each system's own names stand in its folder; the registry finds them.
"""

from __future__ import annotations

from collections.abc import Mapping

from usher.registry import SYSTEMS, part

CANONICAL_TYPES: Mapping[str, str] = {
    "user.created": "an account exists",
    "password.reset": "someone else set a new password",
    "password.expired": "the password must be changed at the next login",
    "password.reset_requested": "the identity system has sent its own message",
    "password.changed": "the user changed the password",
}
"""The types that mean the same in every identity system. Other types keep their raw names."""


def event_types() -> dict[str, tuple[str, ...]]:
    """Map every type that a handler may name to the systems that send it; the canonical ones are first."""
    senders: dict[str, tuple[str, ...]] = dict.fromkeys(CANONICAL_TYPES, ())
    for system in SYSTEMS:
        for name in part(system, "event_types").EVENT_TYPES:
            senders[name] = (*senders.get(name, ()), system)
    return senders


def renamed_types() -> dict[str, str]:
    """Map the raw names that no event ever has here to canonical ones: a handler for a raw one would never run."""
    return {raw: name for system in SYSTEMS for raw, name in part(system, "event_types").RENAMED_TYPES.items()}

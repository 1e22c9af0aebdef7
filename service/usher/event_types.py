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
    "user.disabled": "someone has disabled the account",
    "user.reenabled": "a disabled account is enabled again",
    "user.deleted": "the account is gone",
}
"""The types that mean the same in every identity system. Other types keep their raw names."""


def event_types() -> dict[str, tuple[str, ...]]:
    """Map every type that a handler may name to the systems that send it; the canonical ones are first."""
    senders: dict[str, tuple[str, ...]] = dict.fromkeys(CANONICAL_TYPES, ())
    for system in SYSTEMS:
        for name in part(system, "event_types").EVENT_TYPES:
            senders[name] = (*senders.get(name, ()), system)
    return senders


def raw_names(type_: str) -> dict[str, str]:
    """Map the systems that send a type to their own name for it, with what has to be in the event where the name is not enough."""
    return {system: _raw_name(system, type_) for system in event_types().get(type_, ())}


def _raw_name(system: str, type_: str) -> str:
    named = part(system, "event_types")
    given = getattr(named, "SENT_AS", {}).get(type_)
    return given or ", ".join(raw for raw, name in named.RENAMED_TYPES.items() if name == type_) or type_


def renamed_types() -> dict[str, str]:
    """Map the raw names that no event ever has here to canonical ones: a handler for a raw one would never run."""
    return {raw: name for system in SYSTEMS for raw, name in part(system, "event_types").RENAMED_TYPES.items()}

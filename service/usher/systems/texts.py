"""Removal of credentials from documents within texts of a document. `strip` goes by names, and would not see them."""

from __future__ import annotations

from typing import Any

from usher.event import Undecodable
from usher.redact.credentials import names_credential
from usher.systems.document import dump, parse, strip

_NAMES = ("name", "key", "field", "type")
"""The fields that hold the name in a pair of name and value."""


def strip_deep(document: Any, also: frozenset[str] = frozenset()) -> Any:
    """Remove credentials from *document*, also in documents within its texts; it may be changed in place.

    A text that only begins like a document becomes None: a text that can't be read can't be stripped.

    Args:
        also: names of fields to empty, whatever they hold.
    """
    _clean(document, also)
    return strip(document)


def _clean(document: Any, also: frozenset[str]) -> bool:
    """Take out, in place, what `strip` can't see; return whether there was anything."""
    nodes, changed = [document], False
    for node in nodes:  # grows while it is walked
        if isinstance(node, dict):
            for name in also & node.keys() | _paired(node):
                changed = changed or node[name] is not None
                node[name] = None
        elif not isinstance(node, list):
            continue
        for place, item in list(node.items() if isinstance(node, dict) else enumerate(node)):
            if isinstance(item, str):
                kept = _clean_text(item, also)
                changed = changed or kept is not item
                node[place] = kept
            else:
                nodes.append(item)
    return changed


def _paired(node: dict[str, Any]) -> set[str]:
    """Find a field with a credential that another field names, as in ``{"name": "password", "value": …}``."""
    return {"value"} if "value" in node and any(names_credential(node.get(name)) for name in _NAMES) else set()


def _clean_text(item: str, also: frozenset[str]) -> str | None:
    if '"' not in item or item.lstrip()[:1] not in {"{", "["}:
        return item
    try:
        inner = parse(item.encode())
    except (Undecodable, UnicodeEncodeError):
        return None
    changed = _clean(inner, also)
    kept = strip(inner)
    return dump(kept).decode() if changed or kept is not inner else item

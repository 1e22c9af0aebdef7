"""Documents without credentials: the one rule for all that comes in, by webhook, by poll, from a file or from a topic.

What is taken out: the value of a field that is named like a credential; the value in a pair of name and value, where the name
is one; and what is a credential within a text, also where the text is a document of its own or is encoded.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from usher.event import Undecodable
from usher.redact.credentials import is_weak, names_credential
from usher.redact.shapes import MASK, holds_any, plainer, without_credentials
from usher.systems.document import dump, parse


def _spelled(*names: str) -> frozenset[str]:
    return frozenset(spelling for name in names for spelling in (name, name.capitalize(), name.upper()))


_NAMES = _spelled("name", "key", "k", "n", "field", "attribute", "property", "header", "label", "param", "parameter")
"""The fields that hold the name in a pair of name and value."""
_VALUES = _spelled(
    "value", "values", "v", "val", "content", "data", "text", "old", "new", "old_value", "new_value", "before", "after",
    "from", "to", "current", "previous",
) | {"oldValue", "newValue", "OldValue", "NewValue"}  # fmt: skip
"""The fields that hold the value."""
_OTHER_NAMES, _OTHER_VALUES = _spelled("type", "id", "path"), _spelled("value", "values", "v", "val")
"""The same where more than a pair has such fields: an event has a ``type``, too, and ``data`` with it."""
_TEXTS = re.compile(r"(?i)(true|false|yes|no|null|none)?")
"""Texts that say yes or no: no credential."""
_METHODS = re.compile(
    r"(?i)([a-z]+_)*(password|passkey|otp|totp|sms|email|phone|mfa|webauthn|oauth|biometric|device_token|pwd|hwk|swk|kba|pin)"
)
"""What stands beside ``password`` in a list of ways to log in, and not in a pair."""
_MARKS: Mapping[str, tuple[str, ...]] = {
    "": ("=", "%", "<", "$", '"', "\\", "&", "eyj", "sg.", "xox", "akia", "asia", "glpat-", "aiza"),
    ":": (": ", "://"),
    "_": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "_live_", "_test_"),
    " ": (
        "earer ", "private key", "basic ",
        "word ", "wort ", "phrase ", "code ", "secret ", "token ", "pin ", "otp ", "pwd ",
    ),
}  # fmt: skip
"""In lower case: one of them is in every text that holds a credential. Each stands under a character that it has, which is sought first."""
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_MAY_BE_ENCODED = re.compile(r"(?:[A-Za-f][A-Za-z0-9+/_-]{3}){3}[A-Za-z0-9+/_-]*={0,2}\Z")
"""The same where it begins with ASCII, as documents do: most ids and words are not looked into."""
_LISTED = re.compile(r"[A-Z]+(_[A-Z]+)+|/[\w /-]+")
"""A name in a list of such names, as Keycloak's actions (``["UPDATE_PASSWORD", "UPDATE_PROFILE"]``) and groups, and no pair."""
_WORDS = re.compile(r"[a-z]{1,20}([_:.-][a-z]{1,20})*")
"""The key of a role or a group, as Authgear writes it: ``{"key": "store_manager"}``. A key that opens something is no word."""
_DEEPEST = 220
"""Levels that are looked into, those of documents within texts included; a text that is deeper is not kept."""
_MOST_ROUNDS = 8
_LONGEST_NAME = 80
_MOST_NAMES = 4096
_harmless: set[str] = set()
"""Field names already found not to name a credential: asking a set is what makes this cheap on every event."""
_LONGEST_TEXT = 400
_MOST_TEXTS = 4096
_plain_texts: set[str] = set()
"""Texts already found to hold no credential, whatever stands beside them: most texts of events are there again and again."""


def strip(document: Any, also: frozenset[str] = frozenset()) -> Any:
    """Return *document* without credentials: the very same object if there are none.

    Flags (true, false, null, and texts that say so) hold no secret and stay. A text that begins like a document and can't be
    read becomes None: it can't be looked into.

    Args:
        also: names of fields to empty, whatever they hold.
    """
    for _ in range(_MOST_ROUNDS):  # what a mask leaves may be the name of what stands beside it
        kept = _stripped(document, also)
        if kept is document:
            break
        document = kept
    return document


def _stripped(document: Any, also: frozenset[str]) -> Any:
    named, texts = _look(document, also)
    stripping = _Stripping(also, _marks_in("\n".join(texts)))
    if not named and all(stripping.of(text) is text for text in texts):  # quicker than to walk through all of it
        return document
    return stripping.of(document)


def _look(document: Any, also: frozenset[str]) -> tuple[bool, list[str]]:
    """Return whether a field has to go, and all texts that are not known yet. A credential is in the one or in the other."""
    harmless, plain = _harmless, _plain_texts
    nodes, texts, named = [document], [document] if type(document) is str else [], False
    for node in nodes:  # grows while it is walked
        if type(node) is dict:
            if not harmless.issuperset(node):
                named = named or any(_is_credential(name, node[name]) for name in node.keys() - harmless)
            if not _VALUES.isdisjoint(node) or not also.isdisjoint(node):
                named = named or bool(_paired(node) or also & node.keys())
            node = node.values()
        elif type(node) is not list:
            continue
        elif len(node) == 2:
            named = named or _is_pair(node)
        for item in node:
            kind = type(item)
            if kind is str and item not in plain:
                texts.append(item)
            elif kind is dict or kind is list:
                nodes.append(item)
    return named, texts


def _marks_in(text: str) -> list[str]:
    lower = (text if text.isascii() else f"{text}\n{plainer(text)}").lower()
    return [mark for first, marks in _MARKS.items() if first in lower for mark in marks if mark in lower]


def _is_credential(name: str, item: Any) -> bool:
    if name in _harmless:
        return False
    if names_credential(name):
        return _may_be_one(item) and not (is_weak(name) and _is_harmless(name, item))
    if len(name) <= _LONGEST_NAME and len(_harmless) < _MOST_NAMES:
        _harmless.add(name)
    return False


def _may_be_one(item: Any) -> bool:
    return not (item is None or item is True or item is False or (type(item) is str and _TEXTS.fullmatch(item)))


def _is_harmless(name: str, item: Any) -> bool:
    """Whether what stands under a weak name is none of the credentials that have such names."""
    if type(item) is str:
        return name.lower() == "key" and _WORDS.fullmatch(item) is not None
    return type(item) is dict or type(item) is list


class _Stripping:
    """One document on its way. It is not changed: what has to be is made anew. *marks* are those that are in its texts."""

    def __init__(self, also: frozenset[str], marks: list[str]) -> None:
        self._also = also
        self._marks = marks
        self._level = 0

    def of(self, node: Any) -> Any:
        kind = type(node)
        if kind is str:
            return node if node in _plain_texts else self._text(node)
        if kind is not dict and kind is not list:
            return node
        self._level += 1
        kept = self._object(node) if kind is dict else self._list(node)
        self._level -= 1
        return kept

    def _object(self, node: dict[str, Any]) -> dict[str, Any]:
        is_pair = not _VALUES.isdisjoint(node)
        paired = _paired(node) if is_pair else frozenset()
        made: dict[str, Any] = {}
        changed = False
        for name, item in node.items():
            if _is_credential(name, item) and not (is_pair and name in _NAMES):
                changed = True
                continue
            kept = None if name in paired or name in self._also else self.of(item)
            changed = changed or kept is not item
            made[name] = kept
        return made if changed else node

    def _list(self, node: list[Any]) -> list[Any]:
        pairs = all(type(item) is list and len(item) == 2 for item in node)
        made = [[item[0], None] if pairs and _is_pair(item) else self.of(item) for item in node]
        if _is_pair(node) and type(node[1]) is str and not _are_names(node):
            made[1] = None
        same = all(kept is item for kept, item in zip(made, node, strict=True))
        return node if same else made

    def _text(self, item: str) -> str | None:
        if not self._is_marked(item):
            return _known(item)
        if '"' in item and item.lstrip()[:1] in {"{", "["}:
            return self._document_in(item)
        plain = plainer(item)
        if plain == item and _ENCODED.fullmatch(item):
            plain = _decoded(item)
        if plain != item:
            kept: str | None = self._within(plain)
            if kept != plain:
                return kept
        masked = without_credentials(item, "document")
        if masked != item:
            return masked
        return _known(item) if plain == item else item  # what is within it depends on how deep that is

    def _is_marked(self, text: str) -> bool:
        if not text.isascii():
            return True
        return holds_any(self._marks, text.lower()) or _MAY_BE_ENCODED.match(text) is not None

    def _document_in(self, item: str) -> str | None:
        try:
            inner = parse(item.encode())
        except (Undecodable, UnicodeEncodeError):
            return None
        kept = self._within(inner)
        return item if kept is inner else None if kept is None else dump(kept).decode()

    def _within(self, node: Any) -> Any:
        """Look into what a text holds; None: it is too deep."""
        if self._level >= _DEEPEST:
            return None
        within = _Stripping(self._also, _marks_in("\n".join(_look(node, self._also)[1])))
        within._level = self._level + 1
        return within.of(node)


def _known(text: str) -> str:
    """Remember that *text* holds no credential."""
    if len(text) <= _LONGEST_TEXT:
        if len(_plain_texts) >= _MOST_TEXTS:
            _plain_texts.clear()
        _plain_texts.add(text)
    return text


def _is_name(item: Any) -> bool:
    return type(item) is str and names_credential(item.replace(MASK, ""), "pair")


def _is_pair(node: list[Any]) -> bool:
    return len(node) == 2 and _is_name(node[0]) and _may_be_one(node[1])


def _are_names(node: list[str]) -> bool:
    """Whether the second text is a name beside the first one, and not its value."""
    return _METHODS.fullmatch(node[1]) is not None or all(map(_LISTED.fullmatch, node))


def _paired(node: dict[str, Any]) -> set[str]:
    """Find the fields with a credential that another field names, as in ``{"name": "password", "value": …}``."""
    found: set[str] = set()
    for name, item in node.items():
        values = _VALUES if name in _NAMES else _OTHER_VALUES if name in _OTHER_NAMES else None
        if values and _is_name(item):
            found |= {other for other in values & node.keys() if _may_be_one(node[other])}
    return found


def _decoded(item: str) -> str:
    """Return the text that *item* is in base64, or *item* itself."""
    try:
        plain = item.replace("-", "+").replace("_", "/")
        text = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return item
    return text if "".join(text.split()).isprintable() else item

"""Forms, read as documents. Hides how ``application/x-www-form-urlencoded`` writes nested fields, as in ``data[user][id]``."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from usher.systems.document import NotJson

_MOST_FIELDS = 2_000
_DEEPEST = 20
_STEP = re.compile(r"\[([^\[\]]*)\]")
_BRACKET = re.compile(r"[\[\]]")
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


def form_document(body: bytes) -> dict[str, Any]:
    """Read a form as a document: values are texts, an empty one is None.

    Raises:
        NotJson: it is no form, or larger than any form that a system sends.
    """
    try:
        fields = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, strict_parsing=True, max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        fields = []
    if not fields:
        raise NotJson("neither a JSON document nor a form")
    document: dict[str, Any] = {}
    for name, value in fields:
        _put(document, _path(name), value or None)
    made = _with_lists(document)
    return made if isinstance(made, dict) else {}


def _path(name: str) -> list[str]:
    match = _NAME.fullmatch(name)
    # Of an ill-formed name all parts are taken: credentials are recognised by their names, and none may hide in brackets.
    path = [match[1], *_STEP.findall(match[2])] if match else [part for part in _BRACKET.split(name) if part]
    if len(path) > _DEEPEST:
        raise NotJson(f"a form with fields more than {_DEEPEST} levels deep")
    return path or [""]


def _put(node: dict[str, Any], path: list[str], value: str | None) -> None:
    *outer, last = path
    for step in outer:
        step = step or str(len(node))  # data[list][]=: the next item of a list
        inner = node.get(step)
        if not isinstance(inner, dict):
            inner = node[step] = {}
        node = inner
    node[last or str(len(node))] = value


def _with_lists(node: Any) -> Any:
    """Turn objects whose names are all numbers into lists."""
    if not isinstance(node, dict):
        return node
    made = {name: _with_lists(item) for name, item in node.items()}
    if made and all(name.isascii() and name.isdecimal() for name in made):
        return list(made.values())
    return made

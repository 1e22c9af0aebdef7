"""JSON documents: read from bytes, written to bytes. Hides the parser and its limits.

The parser is strict on purpose: what it accepts is well-formed for every later reader. UTF-8 without lone surrogates, no NaN
or Infinity, at most 200 levels deep, whole numbers of at most 4,300 digits.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn

from pydantic_core import from_json, to_json

from usher.event import Undecodable
from usher.redact import scrub

_BOM = b"\xef\xbb\xbf"


class NotJson(Undecodable):
    """These bytes are not even JSON: the sender sent something else."""


def parse(value: bytes) -> Any:
    """Parse the JSON document in *value*; a byte order mark is skipped. Of a repeated key the last one counts.

    Raises:
        NotJson: it is not JSON.
        Undecodable: it is JSON beyond the limits (nesting, numbers, lone surrogates). Neither quotes the content.
    """
    text = value[3:] if value.startswith(_BOM) else value
    try:
        return from_json(text, allow_inf_nan=False, cache_strings="keys")
    except ValueError as refusal:
        reason = scrub(f"no JSON document that can be read: {refusal}")
        raise (Undecodable if _is_json(text) else NotJson)(reason) from None


def unwrap(document: Any) -> Any:
    """Take out what a CloudEvent in structured form carries (CloudEvents 1.0, JSON format); return any other document as it is.

    Raises:
        NotJson, Undecodable: its ``data_base64`` holds no JSON.
    """
    if type(document) is dict and "specversion" in document:
        if "data" in document:
            return document["data"]
        if isinstance(encoded := document.get("data_base64"), str):
            try:
                return parse(base64.b64decode(encoded, validate=True))
            except binascii.Error:
                raise Undecodable("the CloudEvent's data_base64 is not base64") from None
    return document


def unambiguous(value: bytes) -> bool:
    """Return whether no object in these bytes has a field twice: `parse` would overlook all but the last one."""
    try:
        json.loads(value.removeprefix(_BOM), object_pairs_hook=_each_once, parse_int=str)
    except ValueError:
        return False
    return True


def dump(document: Any) -> bytes:
    """Write a document that `parse` returned as compact UTF-8 bytes."""
    return to_json(document, inf_nan_mode="null")


def _is_json(text: bytes) -> bool:
    """Return whether it is JSON by the grammar; nesting that is too deep to check counts as JSON, so that nothing signed is lost."""
    try:
        json.loads(text.decode("utf-8"), parse_int=str, parse_constant=_refuse)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _each_once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(fields)
    if len(made) < len(fields):
        raise ValueError("a field is there twice")
    return made


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)

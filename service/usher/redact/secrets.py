"""The values of the secrets that were given to this process, in the forms in which a text may quote them."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

from usher.redact.shapes import MASK

_SHORT = 6
"""Characters below which a secret is also a part of other words: it is masked only where it stands as a value."""
_TOO_SHORT = 4
"""Characters below which a secret is none: it would be found everywhere."""
_LEAST_OF_BASE64 = 5
_LEAST_OF_A_URL = 8
_WORD_LIKE = re.compile(r"[a-z]+([-_][a-z]+)*|v?[0-9]{1,3}")
_OUR_MASKS = ("<secret>", "<email>", "<number>", "<name>", "<personal>")


class _Known:
    """What is looked for: *forms* from the shortest to the longest, and a pattern for the *short* ones."""

    def __init__(self) -> None:
        self.given: dict[str, frozenset[str]] = {}
        self.forms: tuple[str, ...] = ()
        self.short: re.Pattern[str] | None = None
        self.changes = 0


_known = _Known()


def know(origin: str, values: Iterable[str]) -> None:
    """Mask *values* from now on, wherever a text is scrubbed. They replace what the same *origin* gave before."""
    _known.given[origin] = frozenset(value for value in values if value)
    _known.changes += 1
    forms, short = set[str](), set[str]()
    for value in frozenset[str]().union(*_known.given.values()):
        for part in _parts(value):
            if len(part) < _TOO_SHORT:
                continue
            usual = len(part) >= _SHORT and not any(part in mask for mask in _OUR_MASKS)
            (forms if usual else short).update(_forms(part) if usual else {part})
    _known.forms = tuple(sorted(forms, key=len))
    alternatives = "|".join(map(re.escape, sorted(short, key=len, reverse=True)))
    _known.short = re.compile(rf"(?<=[=:\"'/])(?:{alternatives})(?![\w>])") if short else None


def changes() -> int:
    """How often `know` was called: what was scrubbed before may hold what is a secret since."""
    return _known.changes


def without_secrets(text: str) -> str:
    """Mask the known secrets in *text*."""
    found, length = [], len(text)
    for form in _known.forms:
        if len(form) > length:
            break
        if form in text:
            found.append(form)
    for form in reversed(found):  # the longest first: a shorter one may be a part of it
        text = text.replace(form, MASK)
    return _known.short.sub(MASK, text) if _known.short else text


def _parts(value: str) -> Iterator[str]:
    """Yield *value*; of a URL what makes it a secret, without the host: it may be quoted alone, and an operator needs the host."""
    try:
        url = urlsplit(value if "://" in value else "")
        texts = [url.password or "", url.netloc.rpartition("@")[0]]
    except ValueError:
        yield value
        return
    path = value.partition("://")[2][len(url.netloc) :].lstrip("/")
    texts += [*url.path.split("/"), *(text for _, text in parse_qsl(f"{url.query}&{url.fragment}"))]
    parts = [text for text in texts if len(text) >= _LEAST_OF_A_URL and not _WORD_LIKE.fullmatch(text)]
    yield from parts
    if path or not parts:
        yield path if len(path) >= _LEAST_OF_A_URL else value


def _forms(value: str) -> set[str]:
    """Return the spellings of *value*: as it is, escaped for JSON and Python, percent-encoded, in base64 at each of three places."""
    data = value.encode("utf-8", "surrogatepass")
    percent = {quote(data, safe=""), quote(data, safe="/"), quote(data, safe="/:@!$&'()*+,;=~"), quote_plus(data)}
    percent |= {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), text) for text in percent}
    escaped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    escaped.add(json.dumps(value)[1:-1].replace("/", "\\/"))
    encoded = set()
    for before in range(3):
        # What depends on the bytes beside it is left out, so that it is found wherever in the encoded text it stands.
        whole = b64encode(b"\0" * before + data)
        inner = whole[(0, 2, 3)[before] : (len(data) + before) // 3 * 4].decode()
        encoded |= {inner, inner.replace("+", "-").replace("/", "_")}
    return {value, data.hex(), *percent, *escaped, *(text for text in encoded if len(text) >= _LEAST_OF_BASE64)}

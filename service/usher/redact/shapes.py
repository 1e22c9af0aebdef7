"""Credentials within a text: known by how they look, by the name before them, or by the link that they are in.

All patterns begin at a place where a word begins, so that the work grows no faster than the text.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal
from urllib.parse import unquote

from usher.redact.credentials import names_credential

MASK = "<secret>"
_QUOTED = r"\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?"
_LOOKS = re.compile(
    r"""
    -----BEGIN\ [A-Z0-9 ]*PRIVATE\ KEY(?:\ BLOCK)?-----.*?(?:-----END\ [A-Z0-9 ]*-----|\Z)
    | \beyJ[\w+/=-]{8,}(?:\.[\w+/=-]*){0,4}
    | \b(?:SG\.[\w.-]{10,} | gh[pousr]_\w{16,} | xox[a-z]-[\w-]{8,} | A[KS]IA[0-9A-Z]{16}
            | [srp]k_(?:live|test)_\w{8,} | glpat-[\w-]{8,} | AIza[\w-]{30,})
    | \$(?:2[abxy]?|[156y]|apr1|argon2\w{0,2}|pbkdf2[\w-]*|scrypt|bcrypt[\w-]*)\$[^\s"'<>;]{8,}
    | \{(?:S?SHA\d*|S?MD5|CRYPT|PBKDF2[\w-]*|BCRYPT|ARGON2\w*)\}[^\s"'<>,;]{8,}
    | \b(?:pbkdf2_sha\d+|pbkdf2:sha\d+|argon2|bcrypt_sha256|bcrypt|scrypt|sha\d+|md5)[$:][^\s"'<>,;]*\$[^\s"'<>,;]{8,}
    """,
    re.VERBOSE | re.DOTALL,
)
_LOOK_MARKS = ("eyJ", "-----", "$", "{", "SG.", "_", "xox", "KIA", "SIA", "glpat", "AIza")
_SCHEME = re.compile(r"(?i)\b(bearer|basic(?=\s+[a-z]*[^a-z\s]|\s+[a-z]+[A-Z]))\s+[A-Za-z0-9._~+/=-]{8,}")
_LOGIN = re.compile(r"://[^/\s]+@")
_NAME = re.compile(r"(?<![\w.+-])([\w.-]+)[\]\"'\\]*\s*([=:])\s*")
_PLACE = re.compile(r"\.(?:py|pyx|js|ts|java|kt|go|rb|c|h):\s*\d+(?![\w.])")
"""The end of a file's name and the number of a line in it, as in ``reset_token.py:42``."""
_OF_AN_ERROR = re.compile(r"(?i)(error|status|exit|return|response|reply|result)[\s_-]*\Z")
_ERROR_CODE, _STATUS = re.compile(r"\d{1,5}"), re.compile(r"[1-5]\d\d")
_IN_PROSE = frozenset(
    ("not", "no", "is", "was", "has", "must", "missing", "invalid", "required", "expired", "unknown", "denied", "failed", "field", "value",
     "unable", "cannot", "wrong", "closed", "unsupported")
)  # fmt: skip
"""Words that say something of a credential after its name and a colon, as in ``token: not found``, and are none."""
_VALUE = re.compile(rf"{_QUOTED}|[^\s\"'&,;}}<>]+")
_AUTHORIZATION = re.compile(rf"{_QUOTED}|(?:[\w-]+\s+)?(?:(?:[\w-]+=(?:{_QUOTED}|[^\s\",]+),?\s*)++|[^\s\"'&,;}}]+)")
_COOKIES = re.compile(rf"{_QUOTED}|[^\s\"',;]+(?:;\s*[^\s\"',;]+)*")
_ELEMENT = re.compile(r"<(?:\w+:)?([\w.-]+)(?:\s[^<>]*)?>\s*(?:<!\[CDATA\[)?([^<\]]+)(?=</|\]\])")
_PAIR = re.compile(
    r"(?i)\b(?:name|key|field|id|k)[\"']?\s*[=:]\s*[\"']?([\w.-]++)[\"']?+[\s,;>]*+(?:[\"']?(?:value|val|v)[\"']?\s*[=:]\s*)?+"
    rf"({_QUOTED}|[^\s\"'<>,;}}]+)"
)
_SAID = re.compile(
    r"(?i)\b(?:pass(?:word|wd|phrase|code)|passwort|kennwort|pwd|pin|otp|secret|token|api\s?key|credentials?)\b[\"']?"
    r"(?:\s+(?:is|was|ist|lautet|to|now|provided|given)\b)*[\s:=]+[\"']?(?!\d{4}-\d\d)(?!\d+\w{0,2}\b)"
    r"((?=[^\s\"'<>,;\d]*\d)(?=[^\s\"'<>,;a-zA-Z]*[a-zA-Z])[^\s\"'<>,;]{4,})"
)
_SAID_MARKS = ("pass", "wort", "pwd", "pin", "otp", "secret", "token", "key", "cred", "code")
_CODE = re.compile(r"(?i)\b((?:code|pin|otp|passcode)\s+(?:is|was|ist|lautet)[\s:]+|(?:otp|pin)[\s:]+)\d{4,8}\b")
_URL = re.compile(r"(?i)(?<![a-z])([a-z][a-z0-9+.-]{0,19}://[^\s/?#\"'<>\\]+)([/?#\\][^\s\"'<>]*)")
_AFTER_A_NAME = re.compile(r"(?i)\b(url|uri|path|location)([\"']?\s*[:=]\s*[\"']?)/[^\s\"'<>]+")
_END = re.compile(r"[)\].,;:}|…]*$")
_OPENS = re.compile(
    r"(?i)(reset|activat|confirm|verif|invit|magic|recover|passwordless|unlock|one-?time|login-actions|ticket|(set|change)-?password)"
    r"[\w-]*[/?#=](?=\D{0,200}\d).{6}"
)
_OPENERS = (
    "reset", "activat", "confirm", "verif", "invit", "magic", "recover", "passwordless", "unlock", "time", "login-actions",
    "ticket", "password",
)  # fmt: skip
"""One of them is in each path that `_OPENS` finds."""
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([\"'/\\]))")
_ESCAPES = re.compile(r"[%&\\]")
_LONGEST_PATH = 2000
_ROUNDS = 3

Where = Literal["document", "text"]


def without_credentials(text: str, where: Where) -> str:
    """Mask the credentials in *text*.

    Where it is of a ``document``, a handler needs it: only what is one is masked. In a ``text`` about something, such as an
    error's, nothing is lost by more: `without_paths`, and the rule of names is the wide one.
    """
    masked, lower = text, text.lower()
    if holds_any(_LOOK_MARKS, text):
        masked = _LOOKS.sub(MASK, masked)
    if "earer" in lower or "asic" in lower:
        masked = _SCHEME.sub(rf"\1 {MASK}", masked)
    if " " in text and holds_any(_SAID_MARKS, lower):
        masked = _CODE.sub(rf"\1{MASK}", _SAID.sub(_last_group, masked))
    if "://" in masked:
        masked = _LOGIN.sub(f"://{MASK}@", masked) if "@" in masked else masked
        masked = _URL.sub(_unopened, masked) if where == "document" else masked
    if where == "text":
        masked = without_paths(masked)
    if "<" in masked:
        masked = _ELEMENT.sub(_by_first_group, masked)
    if ("=" in masked or ":" in masked) and not (where == "document" and _names_nothing(masked)):
        masked = _without_named(_PAIR.sub(_by_first_group, masked), where)
    return masked


def holds_any(marks: Sequence[str], text: str) -> bool:
    """Return whether one of *marks* is in *text*: what is quick before a pattern is tried."""
    for mark in marks:  # noqa: SIM110  a generator would take five times as long
        if mark in text:
            return True
    return False


def _names_nothing(text: str) -> bool:
    """Whether no colon or ``=`` in *text*, which is of a document, can come after a name: all are those of URLs."""
    return (
        "=" not in text
        and text.count(":") == text.count("://")
        and not holds_any(("cookie", "authorization"), text.lower())
    )


def without_paths(text: str) -> str:
    """Keep of each URL in *text* scheme, host and port, and of a path that is named as one nothing."""
    if "://" in text:
        text = _URL.sub(_shortened, text)
    return _AFTER_A_NAME.sub(r"\1\2/…", text) if "/" in text else text


def plainer(text: str) -> str:
    """Return *text* without what hides its characters: percent-encoding, HTML's and JSON's escapes, wide letters."""
    for _ in range(_ROUNDS):
        before = text
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)
        if _ESCAPES.search(text):
            text = _ESCAPED.sub(_unescaped, html.unescape(unquote(text)))
        if text == before:
            break
    return text


def _without_named(text: str, where: Where) -> str:
    """*text* with the values masked that are named like credentials, as in ``token=…`` or ``"code": "…"``."""
    parts, end = [], 0
    for name in _NAME.finditer(text):
        if name.end() < end or not names_credential(name[1], where) or _is_place(text, name):
            continue
        value = _value_of(name[1]).match(text, name.end())
        if where == "document" and name[2] == ":" and not (value and _is_field(text, name, value)):
            continue
        if where == "text" and value and _says_what_is_wrong(text, name, value[0]):
            continue
        if value and value.end() > end and value[0].lower() not in {"true", "false", "null", "none"}:
            if name.end() > end:  # else it continues what is masked already
                parts += [text[end : name.end()], MASK]
            end = value.end()
    return "".join([*parts, text[end:]])


def _is_place(text: str, name: re.Match[str]) -> bool:
    """Whether it is a file and a line in it."""
    suffix = name[1].rfind(".")
    return suffix >= 0 and _PLACE.match(text, name.start() + suffix) is not None


def _says_what_is_wrong(text: str, name: re.Match[str], value: str) -> bool:
    """Whether it is the code of an error, which operators look up, or a sentence about a credential."""
    if name[1].lower() == "code":
        before = text[max(name.start() - 20, 0) : name.start()]
        return (_ERROR_CODE if _OF_AN_ERROR.search(before) else _STATUS).fullmatch(value) is not None
    return name[2] == ":" and value.lower() in _IN_PROSE


def _is_field(text: str, name: re.Match[str], value: re.Match[str]) -> bool:
    """Whether it is a field that a colon divides, and not a sentence (``token: users do this``) nor a type (``password:reset``)."""
    if value[0][0] in "\"'" or name[1].lower().endswith(("authorization", "cookie")):
        return True
    return text[name.end(2)].isspace() and text[value.end() : value.end() + 1] in {"", *"\n\r,;}&\"'"}


def _value_of(name: str) -> re.Pattern[str]:
    lower = name.lower()
    return _AUTHORIZATION if lower.endswith("authorization") else _COOKIES if "cookie" in lower else _VALUE


def _last_group(match: re.Match[str]) -> str:
    return f"{match[0][: match.start(1) - match.start()]}{MASK}"


def _by_first_group(match: re.Match[str]) -> str:
    if MASK in match[2] or not names_credential(match[1], "pair"):
        return match[0]
    return f"{match[0][: match.start(2) - match.start()]}{MASK}"


def _shortened(url: re.Match[str]) -> str:
    """Keep of a URL what says which server it is of."""
    end = _END.search(url[2])
    rest = end[0] if end else ""
    return url[0] if url[2] in {f"/{rest}", f"/…{rest}"} or url[2] == rest else f"{url[1]}/…{rest}"


def _unopened(url: re.Match[str]) -> str:
    """Cut a URL that opens an account to who has it."""
    path = url[2][:_LONGEST_PATH]
    may_open = not path.isascii() or holds_any(_OPENERS, path.lower())  # quicker than the pattern
    return f"{url[1]}/{MASK}" if may_open and _OPENS.search(path) else url[0]


def _unescaped(match: re.Match[str]) -> str:
    digits = match[1] or match[2]
    return chr(int(digits, 16)) if digits else match[3]

"""Where the files of the templates lie, and which of them is taken for a user's languages.

A template is a folder of its name, with files named by language (BCP 47, in any case, ``-`` or ``_``)::

    templates/
      welcome_email/
        en.txt      a mail's text; its first line is the subject: "Subject: Your account on {{ service_name }}"
        en.html     the same as HTML (optional); may extend "layout.html", which ships
        de.txt …
      sms_notice/
        en.sms      an SMS

The folder `USHER_TEMPLATES_DIR` comes first, and may replace single files or add languages; then the folder ``templates``
beside each handler's file. The language is chosen by the ``.txt`` (or ``.sms``) files alone: for each of `Event.languages`
the tag as it is, then shortened from its end (``zh-Hant-HK``, ``zh-Hant``, ``zh``), at last ``en``. The HTML part is that
of the same language or none: one mail does not speak two. What is to be included or extended lies beside the folders, or
in one whose name begins with ``_``. Which files there are is looked up once, at start.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from usher.handler import Handler, nearest
from usher.outcome import Reject

FALLBACK = "en"
KINDS = {".txt": "mail", ".html": "mail", ".sms": "SMS"}
_TAG = re.compile(r"[a-z]{2,3}(-[a-z0-9]{1,8})*")


class TemplateKey(NamedTuple):
    """One file among all templates: *language* is a normalised tag."""

    name: str
    suffix: str
    language: str


class TemplateFiles:
    """The template files of the handlers' *folders* and of the user's *overrides*, which is searched first.

    *paths* maps what a file is to its path within its folder, *searched* are the folders in order, *problems* the files
    that can't be what their authors meant.
    """

    def __init__(self, folders: Sequence[Path], overrides: Path | None = None) -> None:
        self.searched = (*([overrides] if overrides else []), *folders)
        self.paths: dict[TemplateKey, str] = {}
        self.problems: list[str] = []
        self._owners: dict[TemplateKey, Path] = {}
        for folder in self.searched:
            for file in sorted(folder.glob("[!._]*/[!.]*")):
                self._add(file, folder, overrides)

    @property
    def names(self) -> list[str]:
        """The names of all templates, sorted."""
        return sorted({key.name for key in self.paths})

    def choose(self, name: str, suffix: str, languages: Iterable[str]) -> tuple[TemplateKey, str]:
        """The file of *name* for the first of *languages* that has one, and its path.

        Raises:
            Reject: there is none; says what was looked for, and where.
        """
        tags: dict[str, None] = {}
        for tag in (tag for wanted in (*languages, FALLBACK) for tag in _shortened(wanted)):
            tags[tag] = None
            if (path := self.paths.get(key := TemplateKey(name, suffix, tag))) is not None:
                return key, path
        if name not in self.names:
            raise Reject(self.missing(name))
        raise Reject(
            f"the template {name!r} has no {KINDS[suffix]} in {' or '.join(tags)}: there is no "
            f"{name}/{FALLBACK}{suffix}; looked in {self._places()}"
        )

    def missing(self, name: str) -> str:
        """The sentence that says that there is no such template."""
        return f"there is no template {name!r}{nearest(name, self.names)}; looked in {self._places()}"

    def incomplete(self, key: TemplateKey) -> list[str]:
        """What the file *key* lacks beside it."""
        if key.suffix == ".html":
            if key._replace(suffix=".txt") not in self.paths:
                return [
                    f"template {self.paths[key]} is never used: {key.name}/{key.language}.txt, with the subject, is missing"
                ]
        elif key._replace(language=FALLBACK) not in self.paths:
            return [f"template {self.paths[key]} has no {key.name}/{FALLBACK}{key.suffix} to fall back to"]
        return []

    def _add(self, file: Path, folder: Path, overrides: Path | None) -> None:
        key = TemplateKey(file.parent.name, file.suffix, _normal(file.stem))
        if file.suffix not in KINDS or not _TAG.fullmatch(key.language):
            self.problems.append(f"{file} is not read: templates are named by language, as en.txt, en.html, en.sms")
        elif (owner := self._owners.get(key)) is None:
            self._owners[key], self.paths[key] = folder, f"{file.parent.name}/{file.name}"
        elif owner != overrides:
            self.problems.append(
                f"template {self.paths[key]} is in {owner} and in {folder}: rename one, or put the one that is to win "
                "into USHER_TEMPLATES_DIR"
            )

    def _places(self) -> str:
        return ", ".join(map(str, self.searched)) or "no folder: no handler has a folder 'templates' beside its file"


def template_folders(handlers: Iterable[Handler]) -> list[Path]:
    """The folders ``templates`` beside the files of *handlers*, those that exist, in the handlers' order."""
    files = (inspect.unwrap(handler.function).__code__.co_filename for handler in handlers)
    folders = dict.fromkeys(Path(file).parent / "templates" for file in files)
    return [folder for folder in folders if folder.is_dir()]


def _shortened(tag: str) -> Iterator[str]:
    parts = _normal(tag).split("-")
    while parts:
        yield "-".join(parts)
        parts.pop()


def _normal(tag: str) -> str:
    """The tag as it is compared: lower case, hyphens, without a POSIX encoding or modifier (``de_DE.UTF-8``)."""
    return re.split(r"[.@]", tag.strip(), maxsplit=1)[0].replace("_", "-").lower()

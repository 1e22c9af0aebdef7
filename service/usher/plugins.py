"""Find the handlers: those that installed packages announce, and those in the files of a folder.

Hides how a handler's code gets into the process. Any failure to load it is a `HandlerError` that names file and line: a
service that starts without a handler that is needed is worse than one that does not start.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from usher.handler import Handler, HandlerError, nearest
from usher.redact import scrub

GROUP = "usher.handlers"
"""The entry-point group: its names are the handlers' names."""

_MODULE_PREFIX = "_usher_handlers_dir_"


def find(handlers_dir: Path | None = None, announced: Iterable[EntryPoint] | None = None) -> list[Handler]:
    """Return all handlers that exist, by name; ``origin`` says which package or file each comes from.

    *announced* are the entry points to load; default: all that are installed. Two handlers with the same name are both
    returned: `select` and the Router decide which of them runs.

    Raises:
        HandlerError: something can't be imported, is no handler, or has another name than its entry point.
    """
    points = entry_points(group=GROUP) if announced is None else announced
    found = [_announced(point) for point in points]
    if handlers_dir is not None:
        found += _in_folder(handlers_dir)
    return sorted(found, key=lambda handler: (handler.name, handler.origin))


def select(found: Iterable[Handler], only: Sequence[str]) -> list[Handler]:
    """Return those of *found* that must run: the named ones, or all but the optional ones if *only* names none.

    A name after ``+`` is added to those that run anyway: ``("+b",)`` is all of them, and b.

    Raises:
        HandlerError: no handler has one of the names.
    """
    handlers = list(found)
    known = sorted({handler.name for handler in handlers})
    more = {name[1:] for name in only if name.startswith("+")}
    alone = {name for name in only if not name.startswith("+")}
    for name in (*alone, *more):
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "no handler was found at all"
            raise HandlerError(f"USHER_HANDLERS names {name!r}, which is no handler{nearest(name, known)}; {there}")
    wanted = alone or {handler.name for handler in handlers if not handler.optional}
    return [handler for handler in handlers if handler.name in wanted | more]


def _announced(point: EntryPoint) -> Handler:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else point.module
    where = f"entry point {point.name} = {point.value} of {package}"
    try:
        handler = point.load()
    except HandlerError:
        raise
    except Exception as error:
        raise HandlerError(
            f"{where}: {_at(error)}can't be loaded: {_description(error)}; mend or remove the package"
        ) from error
    if not isinstance(handler, Handler):
        raise HandlerError(f"{where}: is a {type(handler).__name__}, not a handler; declare it with @on(...)")
    if handler.name != point.name:
        raise HandlerError(f"{where}: the handler is named {handler.name!r}; give the entry point the same name")
    return replace(handler, origin=f"{handler.origin} of {package}")


def _in_folder(folder: Path) -> Iterator[Handler]:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: `_shared.py` can be imported, and `email.py` does not hide Python's own
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith(("_", "test_")) or path.stem == "conftest" or path.stem.endswith("_test"):
            continue
        handlers = _defined_in(_imported(path))
        if not handlers:
            raise HandlerError(
                f"{path}: holds no handler; declare one with @on(...), or begin the file's name with _ if it is a helper"
            )
        for handler in handlers:
            yield replace(handler, origin=f"{path.parent / handler.origin}")


def _imported(path: Path) -> ModuleType:
    name = _MODULE_PREFIX + path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise HandlerError(f"{path}: can't be read as a Python file; rename it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations are resolved, and pickles read, through this table
    try:
        spec.loader.exec_module(module)
    except HandlerError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise HandlerError(f"{_at(error, path)}can't be imported: {_description(error)}") from error
    return module


def _defined_in(module: ModuleType) -> list[Handler]:
    # By identity: an alias is no second handler, and a handler that was imported belongs to its own module.
    handlers = {id(value): value for value in vars(module).values() if isinstance(value, Handler)}
    return [handler for handler in handlers.values() if handler.function.__module__ == module.__name__]


def _at(error: BaseException, path: Path | None = None) -> str:
    """Write ``file:line: `` for the error: the line in *path* if the error passed through it, else where it was raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: "
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if path is not None and frame.filename == str(path)]
    if own:
        return f"{path}:{own[-1].lineno}: "
    if path is not None:
        return f"{path}: "
    inside = [frame for frame in frames if "importlib" not in frame.filename]
    return f"{inside[-1].filename}:{inside[-1].lineno}: " if inside else ""


def _description(error: BaseException) -> str:
    return f"{type(error).__name__}: {scrub(error)}"

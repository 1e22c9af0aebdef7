"""The Jinja environment of templates: a sandbox that loads no template which refers to a credential."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import lru_cache
from types import CodeType
from typing import Any

from jinja2 import (
    BaseLoader,
    Environment,
    FileSystemLoader,
    StrictUndefined,
    Template,
    TemplateSyntaxError,
    UndefinedError,
    meta,
    nodes,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from usher.redact.credentials import names_credential

BREAK = "\ufdd0"
"""A line break of a value, until it is known whether it stands in the subject, which the template's own line break ends."""


class CarefulLoader(FileSystemLoader):
    """Loads no template that reaches for a credential: no message may ever carry one."""

    def load(self, environment: Environment, name: str, globals: Any = None) -> Template:  # noqa: A002
        """As the library does, with what `_compiled` returns."""
        source, _, _ = self.get_source(environment, name)
        return environment.template_class.from_code(environment, _compiled(source, name)[0], globals or {})

    def variables(self, environment: Environment, name: str) -> frozenset[str]:
        """Return the names of what a template needs to be given.

        Raises:
            TemplateError, ValueError, OSError: it can't be read.
        """
        source, _, _ = self.get_source(environment, name)
        return _compiled(source, name)[1]


@lru_cache(maxsize=1024)
def _compiled(source: str, name: str) -> tuple[CodeType, frozenset[str]]:
    """Return the code of a template, and the names of what it needs to be given.

    Raises:
        TemplateSyntaxError: it refers to a credential; or as of the library.
    """
    tree = _COMPILER.parse(source, name, name)
    for node in tree.find_all(nodes.Node):
        for used in _names_in(node):
            # Blunt on purpose: a name that only sounds like one can be given to the template under another.
            if any(names_credential(part, "template") for part in (used, *used.split("."))):
                raise TemplateSyntaxError(
                    f"a message never carries a password or secret, and it refers to {used!r}; say how to set one",
                    node.lineno,
                    name,
                )
    wanted = meta.find_undeclared_variables(tree)
    return _COMPILER.compile(tree, name, name), frozenset(wanted)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox; a template's globals are a plain dict: jinja's chain of two is read in Python, in every rendering."""

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        return {**self.globals, **(d or {})}


def careful_environment(loader: BaseLoader | None) -> Environment:
    """Make the environment of templates. A value that is missing or None is an error where it is printed."""
    return _Environment(
        loader=loader,
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and name.endswith(".html"),
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def _printable(value: object) -> object:
    if value is None:
        raise UndefinedError("a value is None where it is printed; guard it with {% if … %}")
    return value.replace("\n", BREAK) if isinstance(value, str) else value


def _names_in(node: nodes.Node) -> list[str]:
    """The names by which *node* looks something up, also those given as a text: ``x["name"]``, ``x.get("name")``."""
    match node:
        case (
            nodes.Name(name=str(name)) | nodes.Getattr(attr=str(name)) | nodes.Getitem(arg=nodes.Const(value=str(name)))
        ):
            return [name]
        case nodes.Call(node=nodes.Getattr(attr="get")) | nodes.Filter():
            given = [*node.args, *(keyword.value for keyword in node.kwargs)]
            return [arg.value for arg in given if isinstance(arg, nodes.Const) and isinstance(arg.value, str)]
    return []


_COMPILER = careful_environment(None)
"""All environments of templates differ in their loaders alone, so code that one has compiled is good for all."""

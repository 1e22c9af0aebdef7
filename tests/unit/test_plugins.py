"""Finding handlers: in packages and in a folder, and what is said when one can't be had."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from usher.handler import HandlerError
from usher.plugins import GROUP, find, select

HANDLER = '''
from usher import Context, Event, on

@on("user.created")
async def {name}(event: Event, ctx: Context) -> None:
    """Greet."""
'''


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports is gone after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder of importable modules."""
    folder = tmp_path / "site"
    folder.mkdir()
    sys.path.insert(0, str(folder))
    return folder


def write(folder: Path, name: str, text: str = "", *, handler: str = "") -> Path:
    path = folder / name
    path.write_text(text or HANDLER.format(name=handler or path.stem))
    return path


def announce(name: str, value: str) -> list[EntryPoint]:
    return [EntryPoint(name, value, GROUP)]


def test_a_file_in_the_folder_is_a_handler(tmp_path: Path) -> None:
    """Helpers, tests and what is no Python are left alone; the file's name need not be the handler's."""
    write(tmp_path, "greet.py")
    write(tmp_path, "second.py", handler="farewell")
    write(tmp_path, "_shared.py", "raise RuntimeError('imported')")
    write(tmp_path, "test_greet.py", "raise RuntimeError('imported')")
    write(tmp_path, "greet_test.py", "raise RuntimeError('imported')")
    write(tmp_path, "conftest.py", "raise RuntimeError('imported')")
    write(tmp_path, "README.md", "text")

    found = find(tmp_path, announced=())

    assert [(handler.name, handler.origin) for handler in found] == [
        ("farewell", f"{tmp_path}/second.py:4"),
        ("greet", f"{tmp_path}/greet.py:4"),
    ]


def test_a_file_may_hold_several_and_use_its_neighbours(tmp_path: Path) -> None:
    """A helper is imported by its name; a handler that comes through an import counts where it was defined."""
    write(tmp_path, "_shared.py", "WORD = 'hello'" + HANDLER.format(name="elsewhere"))
    both = HANDLER.format(name="one") + HANDLER.format(name="two")
    write(tmp_path, "both.py", "from _shared import WORD, elsewhere\n" + both + "\nalias = two\n")

    assert [handler.name for handler in find(tmp_path, announced=())] == ["one", "two"]


def test_a_file_named_like_a_library_hides_nothing(tmp_path: Path) -> None:
    """`email.py` is a natural name for a handler, and the standard library has one too."""
    write(tmp_path, "email.py", handler="send_mail")
    import email

    find(tmp_path, announced=())

    assert sys.modules["email"] is email


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("x = 1\ndef broken(:\n", ":2: ", "SyntaxError"),
        ("\n\nimport no_such_package\n", ":3: ", "No module named 'no_such_package'"),
        ("def f():\n    return 1 / 0\n\nf()\n", ":2: ", "ZeroDivisionError"),
        ("x = 1\n", ": ", "holds no handler"),
    ],
)
def test_a_file_that_can_not_be_imported_is_named_with_its_line(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    """The mistake is the author's, and is shown with its file and line."""
    path = write(tmp_path, "greet.py", text)

    with pytest.raises(HandlerError) as caught:
        find(tmp_path, announced=())

    assert str(caught.value).startswith(f"{path}{where}")
    assert what in str(caught.value)


def test_a_mistake_in_a_declaration_is_reported_as_it_is(tmp_path: Path) -> None:
    """`@on` says what is wrong better than a note about imports could."""
    write(tmp_path, "greet.py", HANDLER.format(name="greet").replace("user.created", "user.craeted"))

    with pytest.raises(HandlerError, match=r"greet\.py:4: .*no event type 'user\.craeted'"):
        find(tmp_path, announced=())


def test_a_package_announces_a_handler(package: Path) -> None:
    """The entry point's name is the handler's, and the origin says where it is from."""
    write(package, "acme_hooks.py", handler="greet")

    (handler,) = find(announced=announce("greet", "acme_hooks:greet"))

    assert handler.name == "greet"
    assert handler.origin == "acme_hooks.py:4 of acme_hooks"


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("greet", "acme_hooks:nothing", "can't be loaded: AttributeError"),
        ("greet", "no_such_package:greet", "can't be loaded: ModuleNotFoundError"),
        ("welcome", "acme_hooks:greet", "the handler is named 'greet'"),
        ("greet", "acme_hooks:Event", "not a handler; declare it with @on"),
        ("greet", "acme_broken:greet", "acme_broken.py:1: can't be loaded: ZeroDivisionError"),
    ],
)
def test_an_entry_point_that_is_wrong_is_named(package: Path, name: str, value: str, what: str) -> None:
    """With its package and target: nobody knows by heart what is installed."""
    write(package, "acme_hooks.py", handler="greet")
    write(package, "acme_broken.py", "1 / 0")

    with pytest.raises(HandlerError) as caught:
        find(announced=announce(name, value))

    assert f"entry point {name} = {value}" in str(caught.value)
    assert what in str(caught.value)


def test_only_those_that_are_named_run(tmp_path: Path) -> None:
    """`USHER_HANDLERS` chooses; empty means all."""
    write(tmp_path, "one.py")
    write(tmp_path, "two.py")
    found = find(tmp_path, announced=())

    assert [handler.name for handler in select(found, ())] == ["one", "two"]
    assert [handler.name for handler in select(found, ("two",))] == ["two"]


def test_a_name_that_no_handler_has_is_refused(tmp_path: Path) -> None:
    """The nearest is named, and all that there are."""
    write(tmp_path, "welcome_email.py")

    with pytest.raises(HandlerError, match=r"'welcome_mail', .*did you mean 'welcome_email'.*there are welcome_email"):
        select(find(tmp_path, announced=()), ("welcome_mail",))


def test_an_optional_handler_is_off_until_it_is_named(tmp_path: Path) -> None:
    """It changes something elsewhere: alone by its name, beside the others with a plus."""
    write(tmp_path, "greet.py")
    write(
        tmp_path, "change.py", HANDLER.format(name="change").replace('"user.created"', '"user.created", optional=True')
    )
    found = find(tmp_path, announced=())

    def names(*only: str) -> list[str]:
        return [handler.name for handler in select(found, only)]

    assert names() == ["greet"]
    assert names("+change") == ["change", "greet"]
    assert names("change") == ["change"]
    assert names("greet", "+change") == ["change", "greet"]
    with pytest.raises(HandlerError, match=r"'chanje', which is no handler \(did you mean 'change'\?\)"):
        names("+chanje")

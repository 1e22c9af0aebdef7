"""Templates: whose file is taken, in which language, and what happens when it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher import Event, Reject
from usher.channels import gsm7
from usher.channels.templates import Brand, Templates, template_folders
from usher.testing import an_event
from usher_handlers.sms_notice import sms_notice
from usher_handlers.welcome_email import welcome_email

BRAND = Brand("Example", "https://login.example.com", "https://login.example.com/reset")


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def templates(folder: Path, files: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Templates:
    user = None if overrides is None else write(folder / "user", overrides)
    return Templates([write(folder / "package", files)], brand=BRAND, overrides=user)


def mail(text: str) -> dict[str, str]:
    return {"hi/en.txt": f"Subject: Hi\n\n{text}"}


def rendered(folder: Path, text: str, event: Event | None = None, **variables: Any) -> str:
    return templates(folder, mail(text)).mail("hi", event or an_event(), variables=variables).text.strip()


def refusal(folder: Path, text: str, event: Event | None = None) -> str:
    with pytest.raises(Reject) as caught:
        rendered(folder, text, event)
    return caught.value.reason


# Languages


@pytest.mark.parametrize(
    ("event", "taken"),
    [
        (an_event(language="de"), "de"),
        (an_event(language="DE-ch"), "de"),
        (an_event(language="de_AT.UTF-8"), "de-at"),
        (an_event(language="zh-Hant-HK"), "zh-hant"),
        (an_event(language="zh-TW"), "zh"),
        (an_event(language="fr", preferred_languages=["it", "de"]), "de"),
        (an_event(language=None, locale="de-DE"), "de"),
        (an_event(language=None), "en"),
        (an_event(language="tlh"), "en"),
    ],
    ids=lambda value: value if isinstance(value, str) else "/".join(value.languages),
)
def test_the_best_language_that_exists_is_taken(tmp_path: Path, event: Event, taken: str) -> None:
    """Each wanted tag, shortened from its end, before the next; English at last; case and underscores do not matter."""
    files = {f"hi/{tag}.sms": "{{ language }}" for tag in ("en", "de", "de_AT", "zh", "zh-Hant")}

    assert templates(tmp_path, files).sms("hi", event).text == taken


def test_a_mail_speaks_one_language(tmp_path: Path) -> None:
    """A language with a text and no HTML is sent as text alone, not with English HTML."""
    files = {
        "hi/en.txt": "Subject: Hi\n\nHello",
        "hi/en.html": "<p>Hello</p>",
        "hi/fr.txt": "Subject: Salut\n\nBonjour",
    }

    found = templates(tmp_path, files).mail("hi", an_event(language="fr-CA"))

    assert (found.subject, found.text, found.html, found.language) == ("Salut", "Bonjour\n", None, "fr")


# The user's folder


def test_the_users_folder_replaces_a_single_file_and_adds_a_language(tmp_path: Path) -> None:
    """What it does not hold stays as shipped."""
    shipped = {"hi/en.txt": "Subject: Shipped\n\ntext", "hi/en.html": "<p>shipped</p>"}
    own = {"hi/EN.txt": "Subject: Own\n\ntext", "hi/it.txt": "Subject: Ciao\n\ntesto"}
    both = templates(tmp_path, shipped, own)

    english, italian = both.mail("hi", an_event()), both.mail("hi", an_event(language="it"))

    assert (english.subject, english.html, italian.subject) == ("Own", "<p>shipped</p>", "Ciao")
    assert both.check() == []


def test_the_users_folder_replaces_the_layout_of_all_mail(tmp_path: Path) -> None:
    """A brand is one file."""
    own = write(tmp_path, {"layout.html": "<main>{% block content %}{% endblock %}</main>"})
    branded = Templates(template_folders([welcome_email]), brand=BRAND, overrides=own)

    assert (branded.mail("welcome_email", an_event()).html or "").startswith("<main>")


def test_templates_lie_beside_the_handlers_file() -> None:
    """One folder for handlers that share it; handlers without any add none."""
    (folder,) = template_folders([welcome_email, sms_notice])

    assert folder.parts[-2:] == ("usher_handlers", "templates")


# Rendering


def test_html_is_escaped_and_text_is_not(tmp_path: Path) -> None:
    """A name is shown as it is, in both."""
    files = {"hi/en.txt": "Subject: {{ user.name }}\n\n{{ user.name }}", "hi/en.html": "<p>{{ user.name }}</p>"}

    found = templates(tmp_path, files).mail("hi", an_event(name="<b>Ko & Co</b>"))

    assert (found.subject, found.text) == ("<b>Ko & Co</b>", "<b>Ko & Co</b>\n")
    assert found.html == "<p>&lt;b&gt;Ko &amp; Co&lt;/b&gt;</p>"


def test_an_event_is_data_and_never_a_template(tmp_path: Path) -> None:
    """Braces in a name are shown, not run."""
    assert rendered(tmp_path, "{{ user.name }}", an_event(name="{{ 7 * 7 }}")) == "{{ 7 * 7 }}"


def test_a_line_break_in_a_value_makes_no_second_header(tmp_path: Path) -> None:
    """A subject is one line, whatever is in it."""
    files = {"hi/en.txt": "Subject: For {{ user.name }}\n\ntext"}

    found = templates(tmp_path, files).mail("hi", an_event(name="Kim\r\nBcc: all@example.com"))

    assert (found.subject, found.text) == ("For Kim Bcc: all@example.com", "text\n")


def test_a_control_character_in_a_value_does_not_reach_the_subject(tmp_path: Path) -> None:
    """It is dropped, and in a text a line break stays one: a name with ESC in it loses nobody the mail."""
    files = {"hi/en.txt": "Subject: For {{ user.name }}\n\n{{ user.name }}", "hi/en.sms": "{{ user.name }}"}
    known = templates(tmp_path, {**files, "hi/en.html": "{{ user.name }}"})
    event = an_event(name="Kim\x1b[31m\nBerg\x9b")

    found = known.mail("hi", event)

    assert found.subject == "For Kim[31m Berg"
    assert (found.text, found.html) == ("Kim\x1b[31m\nBerg\x9b\n", "Kim\x1b[31m\nBerg\x9b")
    assert "\n" in known.sms("hi", event).text


def test_templates_see_the_event_the_brand_and_what_the_handler_gives(tmp_path: Path) -> None:
    """All of it by the documented names."""
    text = "{{ event.id }} {{ service_name }} {{ login_url }} {{ reset_url }} {{ email }} {{ phone }} {{ language }} {{ door }}"

    found = rendered(tmp_path, text, an_event(id="7", phone="+12025550123"), door="B2")

    assert found == (
        "7 Example https://login.example.com https://login.example.com/reset kim.berg@example.com +12025550123 en B2"
    )


def test_a_template_can_not_leave_its_sandbox(tmp_path: Path) -> None:
    """Nor change what other handlers see."""
    assert "unsafe" in refusal(tmp_path, "{{ ''.__class__.__mro__ }}")
    assert "unsafe" in refusal(tmp_path / "2", "{{ event.payload.update(x=1) }}")


# Mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one\n{{ door }}", "template hi/en.txt line 4: 'door' is undefined"),
        ("{{ user.shoe_size }}", "has no attribute 'shoe_size'"),
        ("{{ phone }}", "template hi/en.txt line 3: a value is None where it is printed"),
        ("{% if %}", "template hi/en.txt line 3: Expected an expression"),
        ("{% include 'footer.txt' %}", "it includes 'footer.txt', which does not exist"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ undefined_thing.x }}", "'undefined_thing' is undefined"),
    ],
)
def test_a_broken_template_is_rejected_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    """No retry mends it: the delivery is dead-lettered, with file and line."""
    assert said in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ event.payload.password }}",
        "{{ event.payload['new_password'] }}",
        "{{ event.payload.get('Passwd') }}",
        "{{ event.payload.user|attr('passphrase') }}",
        "{{ [event.payload]|map(attribute='user.password')|join }}",
        "{{ password }}",
        "{{ event.payload.client_secret }}",
        "{% if false %}{{ event.payload.password }}{% endif %}",
    ],
)
def test_a_template_that_reaches_for_a_password_is_refused(tmp_path: Path, text: str) -> None:
    """When it is checked and when it would be sent."""
    assert "a message never carries a password" in refusal(tmp_path, text)
    assert "a message never carries a password" in "".join(templates(tmp_path, mail(text)).check())


def test_a_template_may_speak_of_passwords(tmp_path: Path) -> None:
    """Only names are looked at; an event's type is no secret."""
    text = "{% if event.type == 'password.reset' %}Your password was changed{% endif %}"

    assert rendered(tmp_path, text, an_event("password.reset")) == "Your password was changed"


def test_a_template_that_does_not_exist_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """With the nearest name there is."""
    found = templates(tmp_path, mail("x"))

    with pytest.raises(Reject, match=r"there is no template 'hj' \(did you mean 'hi'\?\); looked in .*package"):
        found.mail("hj", an_event())
    with pytest.raises(
        Reject, match=r"'hi' has no SMS in de-at or de or en: there is no hi/en.sms; looked in .*package"
    ):
        found.sms("hi", an_event(language="de-AT"))


@pytest.mark.parametrize("content", ["Hello", "Subject:\n\nHello", "", "Subject Hi\n\nHello"])
def test_a_mail_without_a_subject_is_rejected(tmp_path: Path, content: str) -> None:
    """It is the first line of the text."""
    with pytest.raises(Reject, match="its first line should be the subject"):
        templates(tmp_path, {"hi/en.txt": content}).mail("hi", an_event())


def test_empty_messages_are_rejected(tmp_path: Path) -> None:
    """Nobody is sent nothing."""
    empty = templates(tmp_path, {"hi/en.txt": "Subject: Hi\n\n \n", "hi/en.sms": "{% if phone %}{% endif %} "})

    with pytest.raises(Reject, match="has a subject and no text"):
        empty.mail("hi", an_event())
    with pytest.raises(Reject, match="renders to nothing"):
        empty.sms("hi", an_event())


# The check before start


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"hi/de.sms": "x"}, "hi/de.sms has no hi/en.sms to fall back to"),
        ({"hi/en.html": "x"}, "hi/en.html is never used: hi/en.txt, with the subject, is missing"),
        ({"hi/english.txt": "x"}, "english.txt is not read: templates are named by language"),
        ({"hi/en.htm": "x"}, "en.htm is not read"),
        ({"hi/en.sms": "{{ user.shoe_size }}"}, "has no attribute 'shoe_size'"),
        ({"hi/en.txt": "Hello"}, "its first line should be the subject"),
    ],
)
def test_the_check_finds_what_would_fail(tmp_path: Path, files: Mapping[str, str], said: str) -> None:
    """In words that name the file."""
    (problem,) = templates(tmp_path, files).check()

    assert said in problem


def test_the_check_survives_what_is_no_text(tmp_path: Path) -> None:
    """A file in another encoding is named, not a crash."""
    found = templates(tmp_path, {"hi/en.sms": "x"})
    (tmp_path / "package/hi/en.sms").write_bytes("Grüße".encode("latin-1"))

    (problem,) = found.check()
    assert problem.startswith("template hi/en.sms: UnicodeDecodeError")


def test_what_is_included_lies_aside(tmp_path: Path) -> None:
    """In a folder with an underscore, which is no template."""
    found = templates(tmp_path, {"hi/en.sms": "{% include '_parts/bye.txt' %}", "_parts/bye.txt": "Bye"})

    assert (found.sms("hi", an_event()).text, found.names, found.check()) == ("Bye", ["hi"], [])


def test_the_check_knows_no_better_than_the_handler(tmp_path: Path) -> None:
    """What only a handler or a real payload can give is not held against a template."""
    files = {
        "hi/en.sms": "{{ door.number }} {% for x in rooms %}{{ x }}{% endfor %} {{ event.payload.user.id }} {{ beds + 1 }}"
    }

    assert templates(tmp_path, files).check() == []


def test_the_check_names_templates_that_are_asked_for_and_missing(tmp_path: Path) -> None:
    """And looks at no others."""
    found = templates(tmp_path, {"hi/en.sms": "{{ user.nothing }}"}).check(["ho"])

    assert len(found) == 1
    assert found[0].startswith("there is no template 'ho'")


def test_two_packages_with_one_template_are_distinguished(tmp_path: Path) -> None:
    """Only the user's folder may override silently."""
    one, two = write(tmp_path / "one", mail("1")), write(tmp_path / "two", mail("2"))

    assert "rename one" in Templates([one, two], brand=BRAND).check()[0]
    assert Templates([two], brand=BRAND, overrides=one).check() == []


# SMS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("GSM-7", 0, 1)),
        ("a" * 160, ("GSM-7", 160, 1)),
        ("a" * 161, ("GSM-7", 161, 2)),
        ("a" * 306, ("GSM-7", 306, 2)),
        ("a" * 307, ("GSM-7", 307, 3)),
        ("€" * 80, ("GSM-7", 160, 1)),
        ("äöüß@£é", ("GSM-7", 7, 1)),
        ("a" * 152 + "€" + "a" * 152, ("GSM-7", 306, 3)),  # the escape does not fit behind 152
        ("ł" * 70, ("UCS-2", 70, 1)),
        ("ł" * 71, ("UCS-2", 71, 2)),
        ("😀" * 35, ("UCS-2", 70, 1)),
        ("😀" * 67, ("UCS-2", 134, 3)),  # 67 units hold 33 whole pairs
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(map(str, value)),
)
def test_an_sms_is_counted_as_the_networks_count(text: str, expected: tuple[str, int, int]) -> None:
    """Escapes take two units, a character is not cut in half."""
    assert tuple(gsm7.length(text)) == expected


def test_typography_is_made_plain_where_that_is_all_that_stands_in_the_way() -> None:
    """Letters of another alphabet keep the text as it is: it is UCS-2 anyway."""
    assert gsm7.plain("\u201eKim\u2019s\u201c\u00a0\u2013 ok\u2026") == '"Kim\'s" - ok...'
    assert gsm7.plain("Łódź \u2013 ok") == "Łódź \u2013 ok"


@given(st.text(max_size=400))
def test_making_plain_never_costs_a_segment_in_another_alphabet(text: str) -> None:
    """Either the text is untouched, or it now fits GSM-7."""
    found = gsm7.plain(text)

    assert found == text or gsm7.length(found).encoding == "GSM-7"
    assert gsm7.length(text).segments >= 1

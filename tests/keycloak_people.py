"""What people do at Keycloak's own pages, as their browsers would: register, log in, choose a new password."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

import aiohttp
from tests.keycloak import Realm
from yarl import URL

_FORM = re.compile(r'<form[^>]*\saction="([^"]+)"')


async def register(realm: Realm, username: str, password: str, **fields: str) -> None:
    """Sign up."""
    await _fill_in(realm, "registrations", {"username": username, **_twice("password", password), **fields})


async def log_in_with_a_new_password(realm: Realm, username: str, old: str, new: str) -> None:
    """Log in where Keycloak demands another password, and choose it."""
    new_password = {"password-new": new, "password-confirm": new}
    await _fill_in(realm, "auth", {"username": username, "password": old}, new_password)


def _twice(name: str, value: str) -> dict[str, str]:
    return {name: value, f"{name}-confirm": value}


async def _fill_in(realm: Realm, page: str, *forms: Mapping[str, str]) -> None:
    """Fill in one form after the other, until Keycloak leads back to the application."""
    start = f"{realm.server}/realms/{realm.name}/protocol/openid-connect/{page}"
    query = {"client_id": "shop", "response_type": "code", "redirect_uri": "http://127.0.0.1/back", "scope": "openid"}
    # Keycloak's cookies want https; a browser takes them on a loopback address too.
    cookies = aiohttp.CookieJar(unsafe=True, treat_as_secure_origin=URL(realm.server))
    async with aiohttp.ClientSession(cookie_jar=cookies) as browser:
        async with browser.get(start, params=query) as answer:
            text, location = await answer.text(), ""
        for form in forms:
            found = _FORM.search(text)
            assert found, f"no form: {text[:2000]}"
            async with browser.post(html.unescape(found[1]), data=dict(form), allow_redirects=False) as answer:
                text, location = await answer.text(), answer.headers.get("location", "")
            if location.startswith(realm.server):
                async with browser.get(location) as answer:
                    text = await answer.text()
    assert location.startswith("http://127.0.0.1/back?"), f"Keycloak has another question: {location} {text[:2000]}"

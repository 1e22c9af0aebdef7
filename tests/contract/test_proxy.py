"""Requests by a proxy: providers and identity systems are called by the one that the settings or the environment name."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest
from tests.small_proxy import SmallProxy

from usher.addresses import MailSender
from usher.channels import Mail
from usher.channels.sendgrid import SendGrid
from usher.channels.transport import Transport
from usher.context import SendState
from usher.outcome import Retry
from usher.proxies import Proxies
from usher.settings import Settings, SettingsError
from usher.systems.api import ApiClient
from usher.testing.providers import FakeProviders

MAIL = Mail("kim@example.org", MailSender("a@example.org"), "Hello", "Text", None, "k-1")


@dataclass
class Progress:
    state: SendState = "new"
    provider_id: str = ""


def proxies(**environ: str) -> Proxies:
    """What the settings make of an environment."""
    return Settings.load(environ, env_file=None).proxy


async def send(transport: Transport, fake: FakeProviders, progress: Progress) -> None:
    await SendGrid(transport, api_key=fake.sendgrid_api_key, base_url=fake.url).send(MAIL, progress)


@pytest.mark.parametrize("name", ["USHER_PROXY", "HTTP_PROXY", "http_proxy"])
async def test_a_provider_is_called_by_the_proxy(name: str) -> None:
    """Named for Usher alone or for every program; the proxy's account goes to the proxy, and not to the provider."""
    async with FakeProviders() as fake, SmallProxy("us er:p@ss") as proxy:
        given = proxies(**{name: proxy.url("us%20er:p%40ss")})
        async with Transport(proxies=given) as transport:
            await send(transport, fake, Progress())
        assert proxy.asked == [f"POST {fake.url}/v3/mail/send"]
        assert len(fake.accepted) == 1


async def test_an_identity_system_is_called_by_the_proxy() -> None:
    """By the same session."""
    async with FakeProviders() as fake, SmallProxy() as proxy:
        async with Transport(proxies=proxies(HTTP_PROXY=proxy.url())) as transport:
            answer = await ApiClient("Keycloak", fake.url, lambda: transport.session).ask("GET", "/_/seen")
        assert answer.status == 200
        assert proxy.asked == [f"GET {fake.url}/_/seen"]


@pytest.mark.parametrize("environ", [{"NO_PROXY": "127.0.0.1"}, {"no_proxy": "*"}, {"USHER_PROXY": "none"}])
async def test_what_needs_no_proxy_is_called_directly(environ: dict[str, str]) -> None:
    """A host that is excepted, and everything where Usher is to use none."""
    async with FakeProviders() as fake, SmallProxy() as proxy:
        async with Transport(proxies=proxies(HTTP_PROXY=proxy.url(), **environ)) as transport:
            await send(transport, fake, Progress())
        assert proxy.asked == []


async def test_a_proxy_that_refuses_our_account_had_no_message() -> None:
    """Nothing of the request has left: it is tried again, and the reason names the proxy."""
    async with FakeProviders() as fake, SmallProxy("user:right") as proxy:
        progress = Progress()
        way = proxies(HTTPS_PROXY=proxy.url("user:wrong"))
        async with Transport(proxies=way) as transport:
            with pytest.raises(Retry, match="the proxy answered 407"):
                await SendGrid(transport, api_key="SG.key", base_url="https://127.0.0.1:9").send(MAIL, progress)
            with pytest.raises(Retry, match="the proxy answered 407"):
                await ApiClient("Keycloak", "https://127.0.0.1:9", lambda: transport.session).ask("GET", "/")
        assert fake.accepted == []
        assert proxy.asked == ["CONNECT 127.0.0.1:9"] * 2
    assert progress.state == "new"


async def test_a_proxy_that_is_not_there_is_named() -> None:
    """An operator sees that it is the proxy that can't be reached."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        way = proxies(USHER_PROXY=f"127.0.0.1:{unused.getsockname()[1]}")
        async with Transport(proxies=way) as transport:
            with pytest.raises(Retry, match="the proxy: Connection refused"):
                await ApiClient("Keycloak", "http://127.0.0.1:9", lambda: transport.session).ask("GET", "/")


@pytest.mark.parametrize(
    ("environ", "url", "way"),
    [
        ({"HTTPS_PROXY": "http://proxy.example.org:3128"}, "https://api.sendgrid.com/v3", "http://proxy.example.org:3128"),
        ({"HTTPS_PROXY": "proxy.example.org:3128"}, "https://api.sendgrid.com", "http://proxy.example.org:3128"),
        ({"HTTPS_PROXY": "http://proxy.example.org"}, "https://api.sendgrid.com", "http://proxy.example.org:80"),
        ({"HTTPS_PROXY": "http://a:b@proxy.example.org:1"}, "https://api.sendgrid.com", "http://proxy.example.org:1"),
        ({"HTTPS_PROXY": "http://proxy.example.org:1"}, "http://api.sendgrid.com", None),
        ({"HTTPS_PROXY": "x:1", "https_proxy": "y:1"}, "https://api.sendgrid.com", "http://y:1"),
        ({"HTTPS_PROXY": "x:1", "USHER_PROXY": "y:1"}, "https://api.sendgrid.com", "http://y:1"),
        ({"USHER_PROXY": "y:1"}, "http://api.sendgrid.com", "http://y:1"),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "sendgrid.com"}, "https://api.sendgrid.com", None),
        ({"USHER_PROXY": "y:1", "NO_PROXY": ".internal, id.example.org"}, "https://id.example.org", None),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "id.example.org:8443"}, "https://id.example.org:8443", None),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "id.example.org:443"}, "https://id.example.org", None),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "id.example.org:444"}, "https://id.example.org", "http://y:1"),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "*.example.org"}, "https://id.example.org", None),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "a.b, *"}, "https://id.example.org", None),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "a.b,10.0.0.0/8"}, "http://10.1.2.3:8080", None),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "10.0.0.0/8"}, "http://11.1.2.3:8080", "http://y:1"),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "10.0.0.0/8"}, "https://id.example.org", "http://y:1"),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "fd00::/8"}, "http://[fd00::1]:8080", None),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "fd00::1"}, "http://[fd00::1]:8080", None),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "[fd00::1]:8080"}, "http://[fd00::1]:8080", None),
        ({"USHER_PROXY": "y:1", "NO_PROXY": "other.example.org"}, "https://id.example.org", "http://y:1"),
        ({"USHER_PROXY": "y:1"}, "http://localhost:8080", None),
        ({"USHER_PROXY": "y:1"}, "http://127.1.2.3", None),
        ({"USHER_PROXY": "y:1"}, "https://[::1]:8443/x", None),
        ({"USHER_PROXY": "localhost:1"}, "http://127.0.0.1:8080", "http://localhost:1"),
        ({}, "https://api.sendgrid.com", None),
    ],
)  # fmt: skip
def test_the_way_to_a_url(environ: dict[str, str], url: str, way: str | None) -> None:
    """By scheme, less the exceptions; this machine itself without a proxy, unless the proxy is on it, too."""
    found = proxies(**environ).way_to(url)

    assert (None if found is None else str(found)) == way


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("USHER_PROXY", "socks5://user:hunter2@proxy:1080"),
        ("USHER_PROXY", "http://user:hunter2@proxy:99999"),
        ("USHER_PROXY", "http://user:hunter2@/"),
        ("HTTPS_PROXY", "https://user:hunter2@proxy:1"),
        ("http_proxy", "http://user:hunter2@proxy:1/path"),
    ],
)
def test_a_proxy_that_can_not_be_used_is_refused_by_its_name(name: str, value: str) -> None:
    """The start ends with one sentence, which quotes no password."""
    with pytest.raises(SettingsError) as caught:
        proxies(**{name: value})

    [problem] = caught.value.problems
    assert problem.startswith(f"{name}: should be http://host:port")
    assert "hunter2" not in problem

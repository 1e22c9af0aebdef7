"""By which HTTP proxy a URL is reached: Usher's own, or the one that the environment names to all programs."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

from usher.addresses import Address, host_name

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the account that it asks for; *user* is empty where it asks for none."""

    address: Address
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"http://{self.address}"

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """``http://user:password@host:port``; the scheme, and user and password, may be left out; the latter are %-encoded.

        Raises:
            ValueError: it is something else. The text is not quoted: it may hold a password.
        """
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            host, port = host_name(parts.hostname or ""), parts.port or 80
        except ValueError:
            raise ValueError(_NO_PROXY) from None
        if parts.scheme != "http" or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(_NO_PROXY)
        return cls(Address(host, port), unquote(parts.username or ""), unquote(parts.password or ""))


_NO_PROXY = "should be http://host:port or http://user:password@host:port: a proxy that is spoken to by HTTP"


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies by the scheme of the URL, and the hosts that are reached without one (as `NO_PROXY` lists them)."""

    by_scheme: Mapping[str, Proxy] = field(default_factory=dict)
    bypass: str = ""

    def __str__(self) -> str:
        return ",".join(dict.fromkeys(str(proxy) for proxy in self.by_scheme.values())) or "none"

    @classmethod
    def parse(cls, text: str) -> Self:
        """One proxy for everything, or ``none``.

        Raises:
            ValueError
        """
        if text.strip().lower() == "none":
            return cls()
        return cls(dict.fromkeys(_PORTS, Proxy.parse(text.strip())))

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> Self:
        """What `HTTP_PROXY` and `HTTPS_PROXY` say, in lower case or in capitals.

        Raises:
            ValueError: one of them can't be used; names it.
        """
        found = {}
        for scheme in _PORTS:
            names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
            name = next((name for name in names if environ.get(name)), None)
            if name is not None:
                try:
                    found[scheme] = Proxy.parse(environ[name])
                except ValueError as wrong:
                    raise ValueError(f"{name}: {wrong}; correct it, or set USHER_PROXY (`none`: no proxy)") from None
        return cls(found)

    def way_to(self, url: str) -> Proxy | None:
        """Return the proxy by which *url* is reached; None: directly.

        This machine itself is reached directly, unless the proxy is on it: another machine's proxy would look on its own.
        """
        parts = urlsplit(url)
        host, proxy = parts.hostname or "", self.by_scheme.get(parts.scheme)
        if proxy is None or (_is_loopback(host) and not _is_loopback(proxy.address.host)):
            return None
        return None if _is_listed(host, parts.port or _PORTS[parts.scheme], self.bypass) else proxy


def _is_listed(host: str, port: int, bypass: str) -> bool:
    """Return whether *bypass* lists a host: a domain, an address, a network as in ``10.0.0.0/8``, or ``*``."""
    listed = [name.strip().removeprefix("*.").replace("[", "").replace("]", "") for name in bypass.split(",")]
    if "*" in listed or any(_is_within(host, network) for network in listed):
        return True
    return bool(proxy_bypass_environment(f"{host}:{port}", {"no": ",".join(listed)}))


def _is_within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:  # one of them is a name
        return False


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_loopback_url(url: str) -> bool:
    """Return whether *url* is on this machine."""
    return _is_loopback(urlsplit(url).hostname or "")

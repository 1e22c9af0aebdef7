"""The service in a network from which only a proxy leads out: HTTPS by CONNECT, as the environment says."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.certificates import Authority
from tests.service import environment, running, usher
from tests.small_proxy import SmallProxy

from usher.testing import raw_event


@asynccontextmanager
async def https(folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """A server that accepts every mail: its URL, and the certificate to trust."""
    authority = Authority(folder)
    made = authority.issue("server", "password")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key, made.password)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", authority.certificate
    finally:
        server.close()


@pytest.mark.usefixtures("openssl")
async def test_mail_leaves_by_the_proxy_that_the_environment_names(tmp_path: Path) -> None:
    """`usher check` says which way it goes, and the service goes it: a tunnel, with the proxy's account."""
    async with https(tmp_path / "authority") as (url, trusted), SmallProxy("usher:s3cret") as proxy:
        env = environment(
            email="sendgrid", mail_from="a@example.org", sendgrid__api_key="SG.0123456789", sendgrid__base_url=url
        )
        env |= {"HTTPS_PROXY": proxy.url("usher:s3cret"), "SSL_CERT_FILE": str(trusted)}
        _, out, _ = await usher("check", "--json", cwd=tmp_path, env=env)
        said = [row["text"] for row in json.loads(out) if row["what"] == "email: sendgrid"]
        assert f"{url} is called by the proxy {proxy.url()}" in said
        assert "s3cret" not in out

        await usher("emit", "-", cwd=tmp_path, env=env, stdin=raw_event(id="01"))
        async with running(tmp_path, env, cold=True) as service:
            await service.line("message sent", provider="sendgrid")
        assert proxy.asked == [f"CONNECT {url.removeprefix('https://')}"]
        assert proxy.refused == 0

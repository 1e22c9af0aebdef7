"""A real Keycloak for tests and the demo; hides where it comes from, how it is run, and how its admin API is spoken to.

The distribution and p2-inc's webhook extension come from Maven, once, into ``.cache``, and are built there once, which makes
the starts quicker. Each server keeps its data in memory and listens on a port that the OS chose.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from tests.java import SMALL, cached, came_up, fetch, free_ports, run

POM = Path(__file__).with_name("keycloak-pom.xml")
VERSION = "26.4.0"
START_TIMEOUT = 110.0
CLIENT_ID, CLIENT_SECRET = "usher", "the-secret-of-usher's-client"
ROLES = ("view-users", "manage-users", "view-events")
"""What the client of Usher may do: the roles that docs/keycloak.md names."""

ADMIN, ADMIN_PASSWORD = "root", "root-of-a-throw-away-server"
_JAVA = " ".join((*SMALL, "-Dfile.encoding=UTF-8", "-Djava.net.preferIPv4Stack=true"))


def distribution() -> Path:
    """The folder that Keycloak is run from; fetched and built the first time.

    Raises:
        ServerMissing
    """
    return cached(f"keycloak-{VERSION}", _install)


def _install(folder: Path) -> Path:
    fetched = fetch(POM, folder)
    with zipfile.ZipFile(fetched / f"keycloak-quarkus-dist-{VERSION}.zip") as archive:
        archive.extractall(fetched)
    unpacked = fetched / f"keycloak-{VERSION}"
    for extension in fetched.glob("keycloak-events-*.jar"):
        extension.rename(unpacked / "providers" / extension.name)
    run("sh", str(unpacked / "bin" / "kc.sh"), "build", "--db=dev-mem")
    return unpacked


class Server:
    """One Keycloak process, its log in *folder*."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "keycloak.log"
        self._process: subprocess.Popen[bytes] | None = None
        [self._port] = free_ports(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Run it, and return when it answers."""
        command = [
            "sh", str(distribution() / "bin" / "kc.sh"), "start", "--optimized", "--http-enabled=true",
            "--hostname-strict=false", "--cache=local", "--http-host=127.0.0.1", f"--http-port={self._port}",
        ]  # fmt: skip
        admin = {"KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN, "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **admin, "JAVA_OPTS": _JAVA}, stdout=log, stderr=log, start_new_session=True
            )
        if not came_up(self._process, self._answers, START_TIMEOUT):
            self.kill()
            raise RuntimeError(f"Keycloak did not start:\n{self._log.read_text()[-2000:]}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/realms/master", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """Its data is gone with it, so nothing is lost by SIGKILL; the script and its Java end together."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):  # it did not start
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @contextlib.asynccontextmanager
    async def realm(self, **settings: Any) -> AsyncIterator[Realm]:
        """A new realm with a client for Usher, that keeps admin events with their details; *settings* are added to it."""
        async with aiohttp.ClientSession() as session:
            realm = Realm(self.url, f"realm-{uuid.uuid4().hex[:8]}", session)
            await realm.create(settings)
            yield realm


class Realm:
    """One realm, and what an administrator does in it through the admin API."""

    def __init__(self, server: str, name: str, session: aiohttp.ClientSession) -> None:
        self.server, self.name, self._session = server, name, session
        self._token = ""

    def settings(self, **more: Any) -> dict[str, Any]:
        """Usher's settings for it."""
        own = {"url": self.server, "realm": self.name, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, **more}
        return {f"keycloak__{name}": value for name, value in own.items()}

    async def create(self, settings: Mapping[str, Any]) -> None:
        """Make it, with the client of Usher and one that people log in to."""
        usher = {
            "clientId": CLIENT_ID,
            "secret": CLIENT_SECRET,
            "serviceAccountsEnabled": True,
            "standardFlowEnabled": False,
        }
        service_account = {
            "username": f"service-account-{CLIENT_ID}", "enabled": True, "serviceAccountClientId": CLIENT_ID,
            "clientRoles": {"realm-management": list(ROLES)},
        }  # fmt: skip
        document = {
            "realm": self.name, "enabled": True, "registrationAllowed": True, "sslRequired": "none", "eventsEnabled": True,
            "adminEventsEnabled": True, "adminEventsDetailsEnabled": True, "eventsListeners": ["ext-event-webhook"],
            "internationalizationEnabled": True, "supportedLocales": ["en", "de"], "defaultLocale": "en",
            "clients": [usher, {"clientId": "shop", "publicClient": True, "redirectUris": ["http://127.0.0.1/*"]}],
            "users": [service_account],
        }  # fmt: skip
        await self._log_in()
        await self._call("POST", f"{self.server}/admin/realms", {**document, **settings})
        await self._log_in()  # a token knows only the realms that there were
        profile = await self._call("GET", self._path("users/profile"))
        await self._call("PUT", self._path("users/profile"), {**profile, "unmanagedAttributePolicy": "ADMIN_EDIT"})

    async def add_webhook(self, url: str, secret: str) -> None:
        """As docs/keycloak.md says: p2-inc's extension sends both kinds of events there."""
        webhook = {"enabled": True, "url": url, "secret": secret, "eventTypes": ["admin.*", "access.*"]}
        await self._call("POST", f"{self.server}/realms/{self.name}/webhooks", webhook)

    async def create_user(self, username: str, **fields: Any) -> str:
        """The new user's id."""
        return await self.post_user("users", {"username": username, "enabled": True, **fields})

    async def post_user(self, path: str, user: Mapping[str, Any]) -> str:
        """The new user's id; *path* as the client writes it."""
        location: str = await self._call("POST", self._path(path), user)
        return location.rpartition("/")[2]

    async def import_users(self, *users: Mapping[str, Any]) -> None:
        """A partial import, as the console's."""
        await self._call("POST", self._path("partialImport"), {"ifResourceExists": "FAIL", "users": list(users)})

    async def set_password(self, user: str, password: str, *, temporary: bool) -> None:
        credential = {"type": "password", "value": password, "temporary": temporary}
        await self._call("PUT", self._path(f"users/{user}/reset-password"), credential)

    async def update_user(self, user: str, **fields: Any) -> None:
        await self._call("PUT", self._path(f"users/{user}"), fields)

    async def send_actions_email(self, user: str, *actions: str) -> None:
        await self._call("PUT", self._path(f"users/{user}/execute-actions-email"), list(actions))

    async def delete_user(self, user: str) -> None:
        await self._call("DELETE", self._path(f"users/{user}"))

    async def user(self, user: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._call("GET", self._path(f"users/{user}"))
        return found

    async def admin_events(self) -> list[dict[str, Any]]:
        """Oldest first."""
        found: list[dict[str, Any]] = await self._call("GET", self._path("admin-events?max=500"))
        return found[::-1]

    def _path(self, path: str) -> str:
        return f"{self.server}/admin/realms/{self.name}/{path}"

    async def _log_in(self) -> None:
        form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN_PASSWORD}
        url = f"{self.server}/realms/master/protocol/openid-connect/token"
        async with self._session.post(url, data=form) as answer:
            self._token = (await answer.json())["access_token"]

    async def _call(self, method: str, url: str, document: Any = None) -> Any:
        """The answer's document; its location, where it has none."""
        headers = {"authorization": f"Bearer {self._token}"}
        async with self._session.request(method, url, json=document, headers=headers) as answer:
            body = await answer.text()
            assert answer.status < 300, f"{method} {url}: {answer.status} {body}"
            return await answer.json() if body else answer.headers.get("location")

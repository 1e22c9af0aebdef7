"""`make demo-keycloak`: a real Keycloak, Usher beside it, and what people there get to hear; told as it happens.

On a terminal both go on afterwards, to be tried by hand, until Ctrl-C.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import sys
import tempfile
from pathlib import Path

from tests.java import ServerMissing, started
from tests.keycloak import ADMIN, ADMIN_PASSWORD, Realm, Server, distribution
from tests.keycloak_people import log_in_with_a_new_password, register
from tests.service import environment, running

SECRET = "the-secret-of-the-webhook"
TEMPORARY, CHOSEN = "Temporary-pw-1", "Chosen-pw-2"
WANTED = [
    "kim.berg@example.org: Ihr Konto bei Acme",
    "kim.berg@example.org: Ihr Passwort für Acme wurde geändert",
    "lee.other@example.org: Your account on Acme",
    "lee.other@example.org: Your password for Acme has expired",
]


class Outbox:
    """The mails that were written, each told once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.told: dict[Path, str] = {}

    def look(self) -> list[str]:
        """What is new since the last look."""
        new = [path for path in sorted(self._folder.glob("*.eml")) if path not in self.told]
        for path in new:
            mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            self.told[path] = f"{mail['To']}: {mail['Subject']}"
        return [self.told[path] for path in new]

    async def wait(self, patience: float) -> None:
        """Tell what comes, until something has come or the time is over."""
        give_up = asyncio.get_running_loop().time() + patience
        while not (new := self.look()) and asyncio.get_running_loop().time() < give_up:  # noqa: ASYNC110 - files announce nothing
            await asyncio.sleep(0.1)
        for line in new or ["nobody"]:
            print(f"   mail to {line}", flush=True)


async def story(realm: Realm, outbox: Outbox) -> None:
    """What happens, one thing after the other."""
    print("An administrator creates Kim, who reads German.")
    kim = await realm.create_user(
        "kim", email="kim.berg@example.org", firstName="Kim", lastName="Berg", attributes={"locale": ["de"]}
    )
    await outbox.wait(15)
    print("He sets her a temporary password.")
    await realm.set_password(kim, TEMPORARY, temporary=True)
    await outbox.wait(15)
    print("Kim logs in and chooses her own.")
    await log_in_with_a_new_password(realm, "kim", TEMPORARY, CHOSEN)
    await outbox.wait(3)
    print("Sam registers himself.")
    await register(realm, "sam", CHOSEN, email="sam.self@example.org", firstName="Sam", lastName="Self")
    await outbox.wait(3)
    print("The administrator creates Lee.")
    lee = await realm.create_user("lee", email="lee.other@example.org", firstName="Lee", lastName="Other")
    await outbox.wait(15)
    print("He makes Lee choose a new password (required action UPDATE_PASSWORD).")
    await realm.update_user(lee, requiredActions=["UPDATE_PASSWORD"])
    await outbox.wait(15)


async def play(server: Server, folder: Path) -> bool:
    """Whether exactly the right mails were written."""
    async with server.realm() as realm:
        settings = realm.settings(webhook_secret=SECRET, poll="true")
        env = environment(**settings, service_name="Acme", login_url=f"{server.url}/realms/{realm.name}/account")
        async with running(folder, env) as usher:
            await realm.add_webhook(f"{usher.url}/ingest/keycloak", SECRET)
            print(
                f"Usher runs beside it: the webhook is {usher.url}/ingest/keycloak, the admin events are polled too.\n"
            )
            outbox = Outbox(folder / "outbox")
            await story(realm, outbox)
            right = sorted(outbox.told.values()) == WANTED
            print("\nThe right mails, each once." if right else f"\nNOT what should have come: {WANTED}")
            if sys.stdin.isatty():
                await _by_hand(server, realm, folder)
    return right


async def _by_hand(server: Server, realm: Realm, folder: Path) -> None:
    print(f"\nTry it: {server.url}/admin/master/console/#/{realm.name}/users, as {ADMIN} with {ADMIN_PASSWORD}.")
    print(f"Mails are written to {folder / 'outbox'}. Ctrl-C ends it all.")
    await asyncio.Event().wait()


def main() -> int:
    """The exit code."""
    with tempfile.TemporaryDirectory(prefix="usher-keycloak-") as folder:
        print("Keycloak is starting; the first time it is fetched from Maven, too …", flush=True)
        distribution()
        with started(Server(Path(folder) / "keycloak")) as server:
            try:
                return 0 if asyncio.run(play(server, Path(folder))) else 1
            except KeyboardInterrupt:
                return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerMissing as missing:
        sys.exit(str(missing))

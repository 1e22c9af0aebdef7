"""`make demo-keycloak`: run a real Keycloak with Usher beside it, and print which messages its users get.

On a terminal both keep running afterwards, to be tried by hand, until Ctrl-C.
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
    """The mails that were written, each printed once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.mails: dict[Path, str] = {}

    def look(self) -> list[str]:
        """Return the mails that are new since the last look."""
        new = [path for path in sorted(self._folder.glob("*.eml")) if path not in self.mails]
        for path in new:
            mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            self.mails[path] = f"{mail['To']}: {mail['Subject']}"
        return [self.mails[path] for path in new]

    async def wait(self, patience: float) -> None:
        """Wait for new mails, at most *patience* seconds, and print them."""
        give_up = asyncio.get_running_loop().time() + patience
        while not (new := self.look()) and asyncio.get_running_loop().time() < give_up:  # noqa: ASYNC110 - files announce nothing
            await asyncio.sleep(0.1)
        for line in new:
            print(f"   mail to {line}", flush=True)
        if not new:
            print("   no mail", flush=True)


async def story(realm: Realm, outbox: Outbox) -> None:
    """Do to the realm's users what administrators and users do, step by step."""
    print("An administrator creates Kim, who reads German.")
    kim = await realm.create_user(
        "kim", email="kim.berg@example.org", firstName="Kim", lastName="Berg", attributes={"locale": ["de"]}
    )
    await outbox.wait(15)
    print("The administrator sets a temporary password for Kim.")
    await realm.set_password(kim, TEMPORARY, temporary=True)
    await outbox.wait(15)
    print("Kim logs in and chooses a new password.")
    await log_in_with_a_new_password(realm, "kim", TEMPORARY, CHOSEN)
    await outbox.wait(3)
    print("Sam registers without an administrator.")
    await register(realm, "sam", CHOSEN, email="sam.self@example.org", firstName="Sam", lastName="Self")
    await outbox.wait(3)
    print("The administrator creates Lee.")
    lee = await realm.create_user("lee", email="lee.other@example.org", firstName="Lee", lastName="Other")
    await outbox.wait(15)
    print("The administrator makes Lee choose a new password (required action UPDATE_PASSWORD).")
    await realm.update_user(lee, requiredActions=["UPDATE_PASSWORD"])
    await outbox.wait(15)


async def play(server: Server, folder: Path) -> bool:
    """Play the story, and return whether exactly the right mails were written."""
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
            right = sorted(outbox.mails.values()) == WANTED
            print("\nThe right mails were written, each once." if right else f"\nThese mails were expected: {WANTED}")
            if sys.stdin.isatty():
                await _by_hand(server, realm, folder)
    return right


async def _by_hand(server: Server, realm: Realm, folder: Path) -> None:
    print(f"\nTry it: {server.url}/admin/master/console/#/{realm.name}/users, as {ADMIN} with {ADMIN_PASSWORD}.")
    print(f"Mails are written to {folder / 'outbox'}. Ctrl-C ends it all.")
    await asyncio.Event().wait()


def main() -> int:
    """Run the demo, and return its exit code."""
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

"""A real Apache Kafka broker for tests, demos and benchmarks; hides where it comes from and how it is run.

The jars come from Maven, once, into ``.cache``; a first start there makes later ones quick. One process is broker and
controller (KRaft), on ports that the OS chose, with its data in a folder that the caller gives. ``python -m tests.kafka``
runs one until Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from tests.java import SMALL, ServerMissing, cached, came_up, fetch, free_ports

from usher.addresses import KafkaAddress
from usher.delivery import Headers

POM = Path(__file__).with_name("kafka-pom.xml")
START_TIMEOUT = 60.0
_CLUSTER = "AQEBAQEBAQEBAQEBAQEBAQ"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
inter.broker.listener.name={name}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,{protocols}
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=true
num.partitions=1
"""

BACK_SOON = """\
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=1000
"""
"""Properties of a broker that is killed: its controller misses it after a second, and then it can come back. Without them a
busy broker is not taken for dead."""


def jars() -> Path:
    """The folder of the broker's jars; fetches them the first time.

    Raises:
        ServerMissing
    """
    return cached("kafka-4.1.1", lambda folder: fetch(POM, folder))


def _kit() -> Path:
    """What makes starts quick: ``data`` as formatted, and in ``classes.jsa`` what a broker's Java has loaded when it is up.

    Raises:
        ServerMissing
    """
    return cached("kafka-4.1.1-starts", _make_kit)


def _make_kit(folder: Path) -> Path:
    first = Broker(folder / "first")
    first.format()
    shutil.copytree(folder / "first" / "data", folder / "data")
    first.run(f"-XX:ArchiveClassesAtExit={folder / 'classes.jsa'}")
    first.stop(within=120)  # it writes the archive then
    return folder


class Broker:
    """One broker process. Its ports and data outlive `kill` and `stop`: `start` brings the same broker back.

    *properties* are added to ``server.properties``; *listener* is the protocol clients speak to it. *others* are more
    listeners, names to protocols, at `servers_of`; *users* are passwords of SCRAM-SHA-512, by name.
    """

    def __init__(
        self,
        folder: Path,
        *,
        listener: str = "PLAINTEXT",
        others: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        properties: str = "",
    ) -> None:
        self._folder = folder
        protocols = {listener: listener, **(others or {})}
        self._port, controller, *ports = free_ports(len(protocols) + 1)
        self._ports = dict(zip(protocols, (self._port, *ports), strict=True))
        self._users = users or {}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._properties = folder / "server.properties"
        text = _PROPERTIES.format(
            name=listener,
            listeners=",".join(f"{name}://127.0.0.1:{port}" for name, port in self._ports.items()),
            protocols=",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            controller=controller,
            data=folder / "data",
        )
        self._properties.write_text(text + properties)
        self._log = folder / "broker.log"

    @property
    def servers(self) -> str:
        """The bootstrap address."""
        return f"127.0.0.1:{self._port}"

    @property
    def address(self) -> KafkaAddress:
        """The address of a log that is kept there."""
        return KafkaAddress((self.servers,))

    def servers_of(self, listener: str) -> str:
        """The bootstrap address of one of the listeners."""
        return f"127.0.0.1:{self._ports[listener]}"

    def start(self) -> None:
        """Run it, and return when it answers."""
        kit, data = _kit(), self._folder / "data"
        if not data.exists() and self._users:
            self.format()
        elif not data.exists():
            shutil.copytree(kit / "data", data)
        self.run(f"-XX:SharedArchiveFile={kit / 'classes.jsa'}")

    def format(self) -> None:
        """Make its data folder, with its users."""
        arguments = ["format", "-t", _CLUSTER, "-c", str(self._properties)]
        for name, password in self._users.items():
            arguments += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        command = _java("kafka.tools.StorageTool", *arguments)
        subprocess.run(command, cwd=jars(), check=True, capture_output=True, timeout=60)

    def run(self, *options: str) -> None:
        """Run it on its data folder, its Java with these *options*, and return when it answers."""
        command = _java("kafka.Kafka", str(self._properties), options=options)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=jars(), stdout=log, stderr=log)
        if not came_up(self._process, self._answers, START_TIMEOUT):
            self.kill()
            raise RuntimeError(f"Kafka did not start:\n{self._log.read_text()[-2000:]}")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False

    def kill(self) -> None:
        """As a power cut: SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self, within: float = 20.0) -> None:
        """Orderly, or after so many seconds not."""
        self._end(signal.SIGTERM, within)

    def _end(self, how: signal.Signals, within: float = 20.0) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pause(self, *, go_on: bool = False) -> None:
        """Freeze it (connections stay open, nothing is answered), or let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT if go_on else signal.SIGSTOP)

    def move(self) -> None:
        """Give it another address, as a cluster that was built anew behind the same name; only while it is stopped."""
        [port] = free_ports(1)
        text = self._properties.read_text()
        self._properties.write_text(text.replace(f":{self._port}", f":{port}"))
        self._ports = {name: port if old == self._port else old for name, old in self._ports.items()}
        self._port = port

    def damage(self, topic: str, partition: int, content: bytes) -> None:
        """Change a stored record that contains *content*, as a bad disk would; only while the broker is stopped."""
        [segment] = (self._folder / "data" / f"{topic}-{partition}").glob("*.log")
        stored = segment.read_bytes()
        assert stored.count(content) == 1
        segment.write_bytes(stored.replace(content, content[::-1].swapcase()))

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        client = AIOKafkaAdminClient(bootstrap_servers=self.servers)
        await client.start()
        try:
            yield client
        finally:
            await client.close()

    async def create_topic(self, name: str, partitions: int = 1, **configs: str) -> None:
        """Create a topic, and return when clients see it; *configs* with underscores for dots (``cleanup_policy="compact"``)."""
        settings = {key.replace("_", "."): value for key, value in configs.items()}
        async with self.admin() as client:
            answer = await client.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
            for _, error, message in answer.topic_errors:  # type: ignore[attr-defined]  # aiokafka's answers are untyped
                assert error == 0, message or error
            async with asyncio.timeout(START_TIMEOUT):
                while not await _is_seen(client, name, partitions):  # noqa: ASYNC110 - only asking shows it
                    await asyncio.sleep(0.02)

    async def produce(
        self,
        topic: str,
        records: Iterable[tuple[bytes | None, bytes | None]],
        *,
        partition: int | None = None,
        headers: Headers = (),
    ) -> None:
        """Append (key, value) pairs, acknowledged."""
        async with AIOKafkaProducer(bootstrap_servers=self.servers, acks="all", linger_ms=2) as producer:
            futures = [
                await producer.send(topic, key=key, value=value, partition=partition, headers=list(headers))
                for key, value in records
            ]
            for future in futures:
                await future

    async def append_batch(self, topic: str, partition: int, batch: bytes) -> None:
        """Append a batch as another client would write it, byte for byte; acknowledged."""
        async with AIOKafkaProducer(bootstrap_servers=self.servers) as producer:
            await producer.partitions_for(topic)
            leader = producer.client.cluster.leader_for_partition(TopicPartition(topic, partition))
            request = ProduceRequest(None, -1, 10_000, [(topic, [(partition, batch)])])
            answer = await producer.client.send(leader, request)
            [(_, [(_, error, *_)])] = answer.topics
            assert error == 0, for_code(error)


async def _is_seen(client: AIOKafkaAdminClient, topic: str, partitions: int) -> bool:
    """The controller has made it; the broker hears of it a little later."""
    [described] = await client.describe_topics([topic])
    return (
        len([topic_partition for topic_partition in described["partitions"] if topic_partition["leader"] >= 0])
        == partitions
    )


def unique(name: str) -> str:
    """A name for a topic or a group that no other test has."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def _java(main: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
    """A command that runs in the folder of the jars: the archive of classes fits only jars that have the names it was made with."""
    path = ":".join(jar.name for jar in sorted(jars().glob("*.jar")))
    return ["java", *SMALL, *options, "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", path, main, *arguments]


def main() -> None:
    """Run a broker until Ctrl-C; the first line on stdout is its address."""
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder:
        broker = Broker(Path(folder))
        broker.start()
        try:
            print(broker.servers, flush=True)
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
        finally:
            broker.stop()


if __name__ == "__main__":
    try:
        main()
    except ServerMissing as missing:
        sys.exit(str(missing))

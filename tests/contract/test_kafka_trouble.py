"""What KafkaLog does about trouble that is one partition's or one record's, and about outages that only new clients end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import ConsumerStoppedError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from structlog.testing import capture_logs
from tests.certificates import Authority
from tests.contract.logs import PATIENCE, Worker, drained, following, loaded, parked
from tests.contract.test_kafka_log import FAST, grouped, values
from tests.kafka import Broker, unique

from usher.addresses import KafkaAddress
from usher.delivery import Unreadable
from usher.eventlog.kafka import KafkaLog, outage, transactions
from usher.eventlog.port import CaughtUp, LogConfig, Position, TopicPartition
from usher.kafka_options import SecretFile, kafka_options


def latin1(value: bytes) -> bytes:
    """A batch with one record whose header has a name in Latin-1, as a client in another language may write it."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=65_536,
    )  # fmt: skip
    builder.append(0, timestamp=1_000, key=b"k", value=value, headers=[("caf??", b"1")])
    batch = bytearray(builder.build().replace(b"caf??", b"caf\xe9 "))
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
    return bytes(batch)


async def test_a_record_that_cannot_be_read_keeps_its_place_and_the_next_one_is_read(kafka: Broker) -> None:
    """By a member that reads on, by one that begins behind it, and by who reads the topic back."""
    async with grouped(kafka) as new:
        group = await new(1)
        worker = await group.worker()
        await group.produce([b"before"])
        await kafka.append_batch(group.topic, 0, latin1(b"bad"))
        await group.produce([b"after"])

        records = await worker.take(3)
        async with group.browser() as browser:
            scanned = await drained(browser.scan(group.topic))

    assert values(records) == values(scanned) == [b"before", b"", b"after"]
    assert isinstance(records[1].value, Unreadable)
    assert "utf-8" in records[1].value.reason
    assert [record.offset for record in records] == [0, 1, 2]
    assert worker.log.stopped() == {}


async def test_some_kilobytes_that_unpack_to_too_much_are_passed_over(kafka: Broker) -> None:
    """They come as one record that says so, to the member and to what dedupe reads back."""
    async with grouped(kafka) as new:
        group = await new(1)
        async with AIOKafkaProducer(
            bootstrap_servers=kafka.servers, compression_type="zstd", max_request_size=200_000_000
        ) as producer:
            await producer.send_and_wait(group.topic, bytes(100_000_000), partition=0)
        await group.produce([b"after"])
        worker = await group.worker()

        large, after = await worker.take(2)
        [claim] = worker.claims
        await worker.log.commit({claim: Position(2)})
        await worker.log.close()
        second = await group.worker()
        back = await drained(second.log.history(second.claims[0], 1e9, 100))

    assert (values([large]), after.value) == ([b""], b"after")
    assert values(back) == [b"", b"after"]


async def test_what_an_open_transaction_holds_is_counted_and_logged(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is that of all records; a line names the place and since when; a browser can read it, apart from the rest."""
    monkeypatch.setattr(transactions, "_LONG", 0.0)
    async with grouped(kafka) as new:
        group = await new(2)
        worker = await group.worker()
        await group.produce([b"one"])
        assert values(await worker.take(1)) == [b"one"]
        async with AIOKafkaProducer(bootstrap_servers=kafka.servers, transactional_id=unique("tx")) as producer:
            await producer.begin_transaction()
            held = await producer.send_and_wait(group.topic, b"held", partition=0)
            await group.produce([b"behind"])
            claim = worker.held[TopicPartition(group.topic, 0)]
            with capture_logs() as lines:
                for _ in range(3):
                    await worker.log.read(worker.claims, 10, 0.1)
                    ends = await worker.log.ends(worker.claims)
            async with group.browser() as browser:
                scanned = await drained(browser.scan(group.topic))
                uncommitted = await drained(browser.uncommitted(group.topic))
                [lagging, _] = await browser.committed(group.topic)
            await producer.abort_transaction()
        assert values(await worker.take(1)) == [b"behind"]

    assert ends[claim] == lagging.end == 3
    assert (values(scanned), values(uncommitted)) == ([b"one"], [b"held", b"behind"])
    [line] = [line for line in lines if line["event"] == "an open transaction holds a partition"]
    assert (line["topic"], line["partition"], line["offset"], line["waiting"]) == (group.topic, 0, 1, 2)
    assert line["since"].startswith(iso_second(held.timestamp))


def iso_second(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat(timespec="seconds")


@contextlib.asynccontextmanager
async def in_front_of(broker: Broker) -> AsyncIterator[KafkaAddress]:
    """A bootstrap address that stays, whatever address the broker has."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            host, port = broker.servers.split(":")
            there = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield KafkaAddress((f"{host}:{port}",))
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_brokers_that_come_back_under_other_addresses_are_found(
    own_kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outage is logged while nothing is written; then the clients are built anew, and all goes on without a restart."""
    monkeypatch.setattr(outage, "_EVERY", 0.5)
    async with grouped(own_kafka) as new, in_front_of(own_kafka) as address:
        group = await new(1)
        worker = Worker(KafkaLog(address, group.config, FAST), "worker", [])
        group.workers.append(worker)
        await worker.log.open(worker)
        await worker.until(lambda: bool(worker.held))
        await group.produce([b"one"])
        assert values(await worker.take(1)) == [b"one"]
        async with worker.log.lease() as lease:
            await lease.keep("audit", b"1")
        with capture_logs() as lines:
            await asyncio.to_thread(own_kafka.stop)
            await _line(worker, lines, "kafka can't be reached")
            own_kafka.move()
            await asyncio.to_thread(own_kafka.start)
            await _line(worker, lines, "kafka is reached again")
        await group.produce([b"two"])
        assert b"two" in values(await worker.take(1))
        await worker.until(lambda: bool(worker.held))
        await worker.log.park(worker.claims[0], "a", b"1", [])
        async with asyncio.timeout(PATIENCE), worker.log.lease() as lease:
            assert lease.checkpoint("audit") == b"1"
        assert worker.log.needs_restart() == ""

    logged = [line for line in lines if line["event"] == "kafka can't be reached"]
    assert len(logged) == 1
    assert "Connect call failed" in logged[0]["reason"] or "Connection" in logged[0]["reason"]
    assert any(line["event"] == "kafka clients are built anew" for line in lines)


async def _line(worker: Worker, lines: Sequence[Mapping[str, object]], event: str) -> None:
    async with asyncio.timeout(2 * PATIENCE):
        while not any(line["event"] == event for line in lines):
            await worker.log.read((), 1, 0.1)


async def _works_again(worker: Worker) -> None:
    """Assert that the log needs no restart, and that what is appended now is read."""
    assert worker.log.needs_restart() == ""
    await worker.until(lambda: bool(worker.held))
    await worker.log.append("identity.events", b"k", b"one")
    assert values(await worker.take(1)) == [b"one"]


async def test_a_password_that_was_renewed_on_disk_ends_an_outage(
    tmp_path: Path, kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the file has the old one the refusal is logged, and only a new process could help; with the new one all goes on."""
    monkeypatch.setattr(outage, "_EVERY", 0.5)
    monkeypatch.setattr(outage, "_PATIENCE", 0.0)
    module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    broker = Broker(
        tmp_path / "kafka",
        listener="SASL_PLAINTEXT",
        properties=(
            "sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n"
            f'listener.name.sasl_plaintext.plain.sasl.jaas.config={module} username="admin" password="a" '
            'user_admin="a" user_usher="first";\n'
        ),
    )
    secret = tmp_path / "password"
    secret.write_text("first")
    given: dict[str, Any] = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "usher",
    }
    password = SecretFile(str(secret), secret.read_text)
    config = LogConfig("usher", ("identity.events",), start_from="earliest")
    log = KafkaLog(broker.address, config, kafka_options({**given, "sasl_plain_password": password}))
    worker = Worker(log, "worker", [])
    properties = tmp_path / "kafka" / "server.properties"
    await asyncio.to_thread(broker.start)
    try:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.servers, **given, sasl_plain_password="first")
        await admin.start()
        await admin.create_topics([NewTopic("identity.events", 1, 1)])
        await admin.close()
        await log.open(worker)
        await worker.until(lambda: bool(worker.held))
        with capture_logs() as lines:
            await asyncio.to_thread(broker.stop)
            properties.write_text(properties.read_text().replace('user_usher="first"', 'user_usher="second"'))
            await asyncio.to_thread(broker.start)
            await worker.until(lambda: "refuses the user 'usher'" in log.needs_restart())
            secret.write_text("second")
            await _line(worker, lines, "kafka is reached again")
        await _works_again(worker)
    finally:
        await log.close()
        broker.stop()


@pytest.mark.parametrize("error", [ConsumerStoppedError(), asyncio.CancelledError(), RuntimeError("odd")])
async def test_a_client_that_fails_in_an_odd_way_keeps_no_claim_closed(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """aiokafka raises more than errors of Kafka. Once the reader of the retry topics has failed it begins again."""
    async with grouped(kafka) as new:
        group = await new(1)
        first = await group.worker()
        await first.log.park(first.claims[0], "a", b"parked", [])
        ask: Any = AIOKafkaConsumer.end_offsets
        asked: list[Sequence[Any]] = []

        async def end_offsets(consumer: AIOKafkaConsumer, partitions: Sequence[Any]) -> Any:
            if any(partition.topic.endswith("-retry") for partition in partitions):
                asked.append(partitions)
                if len(asked) == 1:
                    raise error
            return await ask(consumer, partitions)

        monkeypatch.setattr(AIOKafkaConsumer, "end_offsets", end_offsets)
        async with parked(first, first.claims[0]) as stream:
            rows = await asyncio.wait_for(anext(stream), PATIENCE)

    assert len(asked) == 2
    assert not isinstance(rows, CaughtUp)
    assert values(rows) == [b"parked"]


_MUTUAL = """\
ssl.keystore.type=PKCS12
ssl.keystore.location={keystore}
ssl.keystore.password=broker
ssl.truststore.type=PEM
ssl.truststore.location={trusted}
listener.name.mtls.ssl.client.auth=required
"""


@pytest.mark.usefixtures("kafka_jars", "openssl")
async def test_certificates_that_were_renewed_on_disk_end_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The brokers come back with another authority. While a file is the old one it is named; with the new ones all goes on."""
    monkeypatch.setattr(outage, "_EVERY", 0.5)
    monkeypatch.setattr(outage, "_PATIENCE", 0.0)
    before, after = (Authority(tmp_path / name) for name in ("before", "after"))
    stores = {each: each.keystore(each.issue("broker", "broker")) for each in (before, after)}
    clients = {each: each.issue("usher", "client") for each in (before, after)}
    now = {name: tmp_path / f"{name}.pem" for name in ("authority", "certificate", "key")}

    def renew(of: Authority, *names: str) -> None:
        files = {"authority": of.certificate, "certificate": clients[of].certificate, "key": clients[of].key}
        for name in names:
            shutil.copy(files[name], now[name])

    store, trusted = tmp_path / "broker.p12", tmp_path / "trusted.pem"
    shutil.copy(stores[before], store)
    shutil.copy(before.certificate, trusted)
    broker = Broker(
        tmp_path / "kafka", others={"MTLS": "SSL"}, properties=_MUTUAL.format(keystore=store, trusted=trusted)
    )
    renew(before, *now)
    options = kafka_options(
        {
            "security_protocol": "SSL",
            "ssl_cafile": str(now["authority"]),
            "ssl_certfile": str(now["certificate"]),
            "ssl_keyfile": str(now["key"]),
            "ssl_password": "client",
        }
    )
    config = LogConfig("usher", ("identity.events",), start_from="earliest")
    log = KafkaLog(KafkaAddress((broker.servers_of("MTLS"),)), config, options)
    worker = Worker(log, "worker", [])
    await asyncio.to_thread(broker.start)
    try:
        await broker.create_topic("identity.events")
        await log.open(worker)
        await worker.until(lambda: bool(worker.held))
        with capture_logs() as lines:
            await asyncio.to_thread(broker.stop)
            shutil.copy(stores[after], store)
            shutil.copy(after.certificate, trusted)
            await asyncio.to_thread(broker.start)
            await worker.until(lambda: "certificate that is not trusted" in log.needs_restart())
            renew(after, "authority")
            await worker.until(lambda: "refuses the client's certificate" in log.needs_restart())
            renew(after, "certificate", "key")
            await _line(worker, lines, "kafka is reached again")
        await _works_again(worker)
    finally:
        await log.close()
        broker.stop()


async def test_a_damaged_retry_partition_holds_up_its_own_claim_alone(own_kafka: Broker) -> None:
    """The parking tables of the other claims are read; the partition is named as one that stands still."""
    async with grouped(own_kafka) as new:
        group = await new(2)
        first = await group.worker()
        for claim in first.claims:
            await first.log.park(claim, "a", f"parked {claim.partition} {'D' * 40}".encode(), [])
        await first.log.close()
        retry = f"{group.config.group}.{group.topic}-retry"
        own_kafka.stop()
        own_kafka.damage(retry, 0, b"parked 0 " + b"D" * 40)
        await asyncio.to_thread(own_kafka.start)

        with capture_logs() as lines:
            second = await group.worker()
            bad, good = second.claims
            async with parked(second, bad) as damaged, parked(second, good) as stream:
                reading = asyncio.ensure_future(anext(damaged))
                assert [v[:8] for v in values(await loaded(stream)) if v] == [b"parked 1"]
                await second.until(lambda: TopicPartition(retry, 0) in second.log.stopped())
                assert not reading.done()
                await second.log.park(good, "b", b"later", [])
                assert values(await following(stream, 1)) == [b"later"]
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    assert ("partition stopped", retry, 0) in [
        (line["event"], line.get("topic"), line.get("partition")) for line in lines
    ]

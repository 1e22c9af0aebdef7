"""A topic on Kafka as it was found, and what would make it lose records that Usher needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

DEFAULT_MAX_BYTES: Final = 1_048_588
_HOUR: Final = 3_600 * 1_000
_DAY: Final = 24 * _HOUR
_LEAST_BYTES: Final = 128 * 1024 * 1024
_LEAST_RECORD: Final = 64 * 1024
"""A stub of a dead letter, with all its headers, fits in."""
_RETENTION: Final = str(90 * _DAY)
_CONFIGS: Final[Mapping[str, Mapping[str, str]]] = {
    "retry": {"cleanup.policy": "compact"},
    "dlt": {"cleanup.policy": "delete", "retention.ms": _RETENTION, "retention.bytes": "-1"},
    "checkpoints": {"cleanup.policy": "compact"},
}
READ_CONFIGS: Final = ("max.message.bytes", "cleanup.policy", "retention.ms", "retention.bytes", "delete.retention.ms")


def configs(kind: str, keep: float) -> Mapping[str, str]:
    """Return the configs with which a topic of this *kind* is created. *keep* is how many seconds receipts are kept."""
    if kind == "receipts":
        return {**_CONFIGS["dlt"], "retention.ms": str(int(keep * 1_000))}
    return _CONFIGS.get(kind, {})


class Topic(NamedTuple):
    """A topic that exists. *configs* is empty where they may not be read, *id* where the brokers do not give it."""

    partitions: int
    replicas: int
    configs: Mapping[str, str] = {}
    id: str = ""

    @property
    def max_bytes(self) -> int:
        """The largest batch that it takes, in bytes."""
        return self._number("max.message.bytes", DEFAULT_MAX_BYTES)

    @property
    def compacted(self) -> bool | None:
        policy = self.configs.get("cleanup.policy")
        return None if policy is None else "compact" in policy

    def loses(self, kind: str) -> tuple[str, str]:
        """Return how a topic of this *kind* would lose or refuse records, and the config that it needs; both empty where it would not."""
        policy, retention = self.configs.get("cleanup.policy"), self._number("retention.ms", -1)
        room, done = self._number("retention.bytes", -1), self._number("delete.retention.ms", _DAY)
        if kind == "source":
            return ("compacted: records would be deleted", "") if self.compacted else ("", "")
        if self.max_bytes < _LEAST_RECORD:
            few = f"max.message.bytes={self.max_bytes}: not even a dead letter without its event fits in"
            return few, f"max.message.bytes={DEFAULT_MAX_BYTES}"
        if kind in {"dlt", "receipts"}:
            what = "dead letters" if kind == "dlt" else "receipts"
            if self.compacted:
                return f"compacted: {what} would be deleted", "cleanup.policy=delete"
            if 0 <= retention < _DAY:
                return f"retention.ms={retention}: {what} would be deleted by age", f"retention.ms={_RETENTION}"
            if 0 <= room < _LEAST_BYTES:
                return f"retention.bytes={room}: {what} would be deleted by size", "retention.bytes=-1"
        elif policy not in {None, "compact"}:
            what = "parked deliveries" if kind == "retry" else "what the group knows"
            lacks = "not compacted" if not self.compacted else f"cleanup.policy={policy}"
            return f"{lacks}: {what} would be deleted by age", "cleanup.policy=compact"
        elif kind == "retry" and 0 <= done < _HOUR:  # Redpanda's -1: tombstones stay
            what = "what says that a delivery is done would be deleted before each reader has it"
            return f"delete.retention.ms={done}: {what}", f"delete.retention.ms={_DAY}"
        return "", ""

    def keeps_otherwise(self, keep: float) -> tuple[str, str]:
        """Return how a topic of receipts keeps them for longer or shorter than *keep* seconds, and the config; both empty where not."""
        wanted = configs("receipts", keep)["retention.ms"]
        if (kept := self.configs.get("retention.ms")) in {None, "", wanted}:
            return "", ""
        return f"retention.ms={kept}: USHER_RECEIPTS__KEEP is {wanted} ms", f"retention.ms={wanted}"

    def _number(self, config: str, otherwise: int) -> int:
        """Return a config as a number; *otherwise* where the brokers tell none."""
        try:
            return int(self.configs[config])
        except (KeyError, TypeError, ValueError):
            return otherwise

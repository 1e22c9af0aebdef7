"""The EventLog port on Apache Kafka, through aiokafka."""

from usher.eventlog.kafka.browser import KafkaBrowser
from usher.eventlog.kafka.log import KafkaLog

__all__ = ["KafkaBrowser", "KafkaLog"]

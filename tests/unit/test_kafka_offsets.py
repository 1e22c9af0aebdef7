"""Questions about the offsets of several partitions, one of which has no leader."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError

from usher.eventlog.kafka.offsets import each_alone, known

GOOD, OTHER, LEADERLESS = (TopicPartition("identity.events", number) for number in range(3))


async def ask(partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Answer as aiokafka does: all, or an error."""
    if LEADERLESS in partitions:
        raise KafkaTimeoutError
    return {each: 10 + each.partition for each in partitions}


async def test_a_partition_without_a_leader_does_not_hold_up_the_answer_of_the_others() -> None:
    """It is left out, or has its error."""
    assert await known(ask, [GOOD, OTHER, LEADERLESS]) == {GOOD: 10, OTHER: 11}

    answers = await each_alone(ask, [GOOD, LEADERLESS])
    assert answers[GOOD] == 10
    assert isinstance(answers[LEADERLESS], KafkaTimeoutError)


async def test_where_nothing_can_be_answered_the_error_is_raised() -> None:
    """For a single partition: nobody else waits."""
    with pytest.raises(KafkaTimeoutError):
        await known(ask, [LEADERLESS])

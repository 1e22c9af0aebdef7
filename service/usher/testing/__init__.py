"""The tools for a handler's test: an event, a run, and channels that record.

    from usher.testing import an_event, run

    async def test_it_writes_to_the_user() -> None:
        result = await run(welcome_email, an_event(email="kim.berg@example.com"))
        assert result.outcome == "done"
        assert result.emails[0].to == "kim.berg@example.com"

For tests of a whole service there is `usher.testing.providers`, a SendGrid and a Twilio on loopback. They fail on demand;
`usher.testing.server` says how.
"""

from usher.testing.channels import RecordingEmail, RecordingSms
from usher.testing.clock import Clock
from usher.testing.events import an_event, raw_event
from usher.testing.identity import FakeIdentity
from usher.testing.run import Result, run

__all__ = ["Clock", "FakeIdentity", "RecordingEmail", "RecordingSms", "Result", "an_event", "raw_event", "run"]

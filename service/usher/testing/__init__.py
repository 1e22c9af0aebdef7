"""What a handler's test needs: an event, a run, and channels that record.

    from usher.testing import an_event, run

    async def test_it_writes_to_the_user() -> None:
        result = await run(welcome_email, an_event(email="kim.berg@example.com"))
        assert result.outcome == "done"
        assert result.emails[0].to == "kim.berg@example.com"

Beside it, for the tests of Usher itself and for demonstrations: `usher.testing.log` (a log in memory, with faults) and
`usher.testing.providers` (loopback SendGrid and Twilio); `usher.testing.auth0` and its like speak for the identity systems.
How they fail on demand is one for all: `usher.testing.server`.
"""

from usher.testing.channels import RecordingEmail, RecordingSms
from usher.testing.clock import Clock
from usher.testing.events import an_event, raw_event
from usher.testing.identity import FakeIdentity
from usher.testing.run import Result, run

__all__ = ["Clock", "FakeIdentity", "RecordingEmail", "RecordingSms", "Result", "an_event", "raw_event", "run"]

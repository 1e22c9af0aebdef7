"""The SDK: mistakes fail where they are made, and say what, where and the way out; the Router decides once."""

from __future__ import annotations

import functools
import re
from typing import Any, cast

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import usher
from usher import Context, Event, Handler, HandlerError, Reject, RetryPolicy, Skip, on
from usher.context import Outgoing, message_of
from usher.event import EventContext
from usher.handler import Router
from usher.testing import an_event, run
from usher_handlers.clear_reset_flag import clear_reset_flag
from usher_handlers.force_password_change import force_password_change
from usher_handlers.welcome_email import welcome_email

ANY = cast("Any", None)


async def noop(event: Event, ctx: Context) -> None:
    """Do nothing."""


def named(name: str, *types: str, triggered_by: Any = None) -> Handler:
    async def handler(event: Event, ctx: Context) -> None: ...

    handler.__name__ = name
    return on(*(types or ("user.created",)), triggered_by=triggered_by)(handler)


def refusal(function: Any, *types: Any, **options: Any) -> str:
    with pytest.raises(HandlerError) as caught:
        on(*types, **options)(function)
    return str(caught.value)


# The door


def test_the_door_is_complete() -> None:
    """Every name that it lists is there."""
    assert all(hasattr(usher, name) for name in usher.__all__)
    assert {"on", "Event", "Context", "Retry", "Reject", "Skip", "RetryPolicy"} <= set(usher.__all__)


def test_a_declared_handler_knows_itself() -> None:
    """Name, first line, place and defaults."""

    class Own(BaseModel): ...

    handler = on("user.created", "password.reset", timeout="5s", expires_after=None, settings=Own)(noop)

    assert (handler.name, handler.summary) == ("noop", "Do nothing.")
    assert handler.types == {"user.created", "password.reset"}
    assert re.fullmatch(r"test_sdk\.py:\d+", handler.origin)
    assert (handler.timeout, handler.expires_after, handler.settings) == (5.0, None, Own)
    assert (handler.triggered_by, handler.retry, handler.ordered, handler.on_unknown) == (None, None, True, None)
    assert on("user.created")(noop).expires_after == 24 * 3600


async def test_a_handler_can_be_called() -> None:
    """As the function that it was."""

    @on("user.created")
    async def probe(event: Event, ctx: Context) -> None:
        raise Skip(event.id)

    with pytest.raises(Skip, match="7"):
        await probe(an_event(id="7"), ANY)


# Mistakes in a declaration


def not_async(event: Event, ctx: Context) -> None: ...
async def no_parameters() -> None: ...
async def one_parameter(event: Event) -> None: ...
async def three_parameters(event: Event, ctx: Context, more: int) -> None: ...
async def keyword_only(event: Event, ctx: Context, *, more: int) -> None: ...
async def only_keywords(*, event: Event, ctx: Context) -> None: ...
async def Welcome(event: Event, ctx: Context) -> None: ...  # noqa: N802
async def generator(event: Event, ctx: Context) -> Any:
    yield


@pytest.mark.parametrize("function", [not_async, generator, functools.partial(not_async, ANY)])
def test_a_handler_is_async(function: Any) -> None:
    """A plain function or a generator is none."""
    message = refusal(function, "user.created")

    assert "is not async; write `async def " in message


@pytest.mark.parametrize("function", [no_parameters, one_parameter, three_parameters, keyword_only, only_keywords])
def test_a_handler_takes_event_and_context(function: Any) -> None:
    """The message shows what it takes, and what to write."""
    message = refusal(function, "user.created")

    assert re.match(rf"test_sdk\.py:\d+: handler '{function.__name__}' takes \(", message)
    assert message.endswith(f"write `async def {function.__name__}(event: Event, ctx: Context)`")


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ((), 'name at least one event type, as in @on("user.created")'),
        ((1,), "name at least one event type"),
        (("user.craeted",), "there is no event type 'user.craeted' (did you mean 'user.created'?)"),
        (("user.created", "password.rest"), "there is no event type 'password.rest' (did you mean 'password.reset'?)"),
        (
            ("completely.different.thing",),
            "there is no event type 'completely.different.thing'; `usher handlers --types`",
        ),
        (("admin_api.mutation.reset_password.executed",), "is called 'password.reset' here"),
    ],
)
def test_event_types_exist(types: tuple[Any, ...], said: str) -> None:
    """The nearest one is named; a raw name that no event arrives under is none."""
    message = refusal(noop, *types)

    assert said in message
    assert re.match(r"test_sdk\.py:\d+: handler 'noop'", message)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retries": 3}, "@on has no option 'retries' (did you mean 'retry'?); it takes triggered_by, retry, timeout"),
        ({"color": "red"}, "@on has no option 'color'"),
        ({"retry": 3}, "retry=3 should be a RetryPolicy(...)"),
        ({"timeout": "soon"}, "'soon' is no duration; write a number and a unit"),
        ({"timeout": 0}, "timeout=0 leaves it no time"),
        ({"expires_after": -1}, "-1 is no duration"),
        ({"on_unknown": "forget"}, "on_unknown='forget' should be 'resend' or 'dead-letter'"),
        ({"settings": {"a": 1}}, "settings={'a': 1} should be a class, a pydantic.BaseModel"),
        ({"triggered_by": []}, "triggered_by=[] should name who may trigger"),
        ({"triggered_by": 7}, "triggered_by=7 should name who may trigger"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    """Name, value and the way out."""
    message = refusal(noop, "user.created", **options)

    assert said in message
    assert re.match(r"test_sdk\.py:\d+: handler 'noop'", message)


def test_names_are_fit_for_settings_and_metrics() -> None:
    """Lower case letters, digits and underscores."""
    assert "handler name 'Welcome' should be lower case letters" in refusal(Welcome, "user.created")


def test_the_parentheses_are_needed() -> None:
    """Without them nothing would be declared, and nothing would say so."""
    with pytest.raises(HandlerError, match=r'test_sdk\.py:\d+: write @on\("user.created"\)'):
        on(cast("Any", noop))


# The Router


def test_two_handlers_of_one_name_are_refused() -> None:
    """Both places are named."""
    with pytest.raises(
        HandlerError, match=r"two handlers are named 'x': test_sdk\.py:\d+ and test_sdk\.py:\d+; rename one"
    ):
        Router([named("x"), named("x", "password.reset")], ["admin_api"])


def test_the_services_filter_holds_where_a_handler_has_none() -> None:
    """A handler's own replaces it, also to ask for what the event does not say."""
    router = Router([named("a"), named("b", triggered_by="user"), named("c", triggered_by="unknown")], ["admin_api"])

    def runs(actor: str | None) -> list[str]:
        return [handler.name for handler in router.match(an_event(triggered_by=actor))]

    assert (runs("admin_api"), runs("user"), runs(None), runs("portal")) == (["a"], ["b"], ["c"], [])
    assert router.actors == {"admin_api", "user", "unknown"}


def test_the_router_explains_itself() -> None:
    """For each handler the condition that decided."""
    router = Router([named("a"), named("b", "password.reset")], ["admin_api", "system"])

    said = {ruling.handler.name: ruling.condition for ruling in router.explain(an_event(triggered_by=None))}

    assert said == {
        "a": "context.triggered_by is 'unknown', not 'admin_api' or 'system': the event does not say who triggered it",
        "b": "type is 'user.created', the handler is for 'password.reset'",
    }
    assert router.why_filtered(an_event(triggered_by="user")) == "triggered_by"
    assert router.why_filtered(an_event("user.deleted")) == "type"


ACTORS = st.sampled_from(["admin_api", "user", "system", "portal", "unknown"])
TYPES = st.sampled_from(["user.created", "password.reset", "user.deleted", "password.expired"])
HANDLERS = st.lists(
    st.builds(
        lambda name, types, actors: named(name, *types, triggered_by=actors),
        st.text("abcdef", min_size=1, max_size=3),
        st.sets(TYPES, min_size=1),
        st.none() | st.sets(ACTORS, min_size=1),
    ),
    unique_by=lambda handler: handler.name,
    max_size=6,
)


@given(HANDLERS, st.sets(ACTORS, min_size=1), TYPES, ACTORS)
def test_match_and_explain_agree(handlers: list[Handler], service: set[str], type_: str, actor: str) -> None:
    """What `explain` says is what happens, for every handler; and a filter of all actors lets nothing else through."""
    event = Event(id="1", type=type_, raw_type=type_, source="authgear", context=EventContext(triggered_by=actor))
    router = Router(handlers, service)

    rulings = router.explain(event)
    matched = {handler.name for handler in router.match(event)}

    assert {ruling.handler.name for ruling in rulings if ruling.runs} == matched
    assert {ruling.handler.name for ruling in rulings} == {handler.name for handler in handlers}
    assert actor in router.actors or not matched


# One message a delivery


class Lost:
    """A Sender that keeps what it is given."""

    def __init__(self) -> None:
        self.outgoing: list[Outgoing] = []

    async def email(self, outgoing: Outgoing) -> None:
        self.outgoing.append(outgoing)

    sms = email


def a_context(sender: Lost, *, already_sent: bool = False) -> Context:
    logger = structlog.get_logger()
    return Context(an_event(), "hi", 1, sender=sender, base_logger=logger, http=ANY, already_sent=already_sent)


@pytest.mark.parametrize("second", ["email", "sms"])
async def test_a_second_message_is_refused(second: str) -> None:
    """A retry would repeat the first; the way out is named, and no retry is made."""
    sender = Lost()
    ctx = a_context(sender)
    await ctx.email("one", to="kim@example.com")

    with pytest.raises(Reject, match=r"hi sends a second message \('two' after 'one'\).*: make it two handlers"):
        await getattr(ctx, second)("two", to="kim@example.com")

    assert [outgoing.template for outgoing in sender.outgoing] == ["one"]


async def test_a_message_that_an_earlier_attempt_sent_is_not_sent_again() -> None:
    """The handler failed after it; the rest of it runs again, the message does not go out."""
    sender = Lost()
    ctx = a_context(sender, already_sent=True)

    await ctx.sms("one", to="+12025550123")

    assert sender.outgoing == []
    message = message_of(ctx)
    assert message is not None
    assert (message.state, message.channel) == ("sent", "sms")


async def test_the_idempotency_key_is_the_deliverys() -> None:
    """The same for every attempt, another for another handler or event, and fit for a header."""
    keys: list[str] = []

    def keeper(name: str) -> Handler:
        async def keep(event: Event, ctx: Context) -> None:
            keys.append(ctx.idempotency_key)

        keep.__name__ = name
        return on("user.created")(keep)

    event = an_event()
    for handler, about, attempt in [
        (keeper("a"), event, 1), (keeper("a"), event, 2), (keeper("b"), event, 1), (keeper("a"), an_event(), 1),
    ]:  # fmt: skip
        await run(handler, about, attempt=attempt)

    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert all(re.fullmatch(r"[ab]-[0-9a-f]{32}", key) for key in keys)


def test_a_policy_of_its_own_travels_with_the_handler() -> None:
    """Unchecked durations would fail at the first retry; these fail here."""
    assert named("a").retry is None
    with pytest.raises(ValueError, match="'soon' is no duration"):
        RetryPolicy(delays=("soon",))


def test_a_handler_says_that_it_never_sends() -> None:
    """Others may send; the bundled ones that only call an API say so."""

    @on("user.created", sends=False)
    async def silent(event: Event, ctx: Context) -> None:
        """Calls an API."""

    @on("user.created")
    async def talking(event: Event, ctx: Context) -> None:
        """Sends a mail."""

    bundled = {handler.name: handler.sends for handler in (clear_reset_flag, force_password_change, welcome_email)}

    assert (silent.sends, talking.sends) == (False, True)
    assert bundled == {"clear_reset_flag": False, "force_password_change": False, "welcome_email": True}

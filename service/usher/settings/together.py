"""The rules between settings: what is needed beside another one, and what can't hold together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from usher.eventlog.names import own_topics, retry_topic
from usher.settings.values import SourceTopic

if TYPE_CHECKING:
    from usher.settings import Settings

_LONGEST_TOPIC = 249


def misfits(settings: Settings) -> Iterator[str]:
    """One line for each: the setting's name, and the way out."""
    yield from _providers(settings)
    yield from _topics(settings)
    yield from _limits(settings)
    yield from _alike(settings)


def _providers(settings: Settings) -> Iterator[str]:
    """What the providers of mail and SMS need."""
    sendgrid, smtp, twilio = settings.sendgrid, settings.smtp, settings.twilio
    no_login = twilio.auth_token is None and twilio.api_key is None
    wanting = [
        ("USHER_SENDGRID__API_KEY", settings.email == "sendgrid" and sendgrid.api_key is None, "USHER_EMAIL=sendgrid"),
        ("USHER_SMTP__URL", settings.email == "smtp" and smtp.url is None, "USHER_EMAIL=smtp"),
        ("USHER_MAIL_FROM", settings.email != "outbox" and "mail_from" not in settings.model_fields_set, f"USHER_EMAIL={settings.email}"),
        ("USHER_TWILIO__ACCOUNT_SID", settings.sms == "twilio" and twilio.account_sid is None, "USHER_SMS=twilio"),
        ("USHER_TWILIO__AUTH_TOKEN", settings.sms == "twilio" and no_login, "USHER_SMS=twilio, or an API key"),
        ("USHER_TWILIO__API_KEY", twilio.api_key is None and twilio.api_key_secret is not None, "USHER_TWILIO__API_KEY_SECRET"),
        ("USHER_TWILIO__API_KEY_SECRET", twilio.api_key is not None and twilio.api_key_secret is None, "USHER_TWILIO__API_KEY"),
        ("USHER_TWILIO__FROM", settings.sms == "twilio" and twilio.from_ is None, "USHER_SMS=twilio"),
    ]  # fmt: skip
    yield from (f"{name}: is needed for {why}; set it" for name, lacks, why in wanting if lacks)
    if settings.email == "sendgrid" and settings.mail_internal_domains:
        yield (
            f"USHER_MAIL_INTERNAL_DOMAINS={','.join(settings.mail_internal_domains)}: SendGrid delivers on the Internet only; "
            "remove it, or set USHER_EMAIL=smtp"
        )


def _topics(settings: Settings) -> Iterator[str]:
    """What is read, and what is appended to."""
    if settings.ingest_topic and SourceTopic(settings.ingest_topic) not in settings.topics:
        yield (
            f"USHER_INGEST_TOPIC={settings.ingest_topic!r}: should be one of USHER_TOPICS, without a source: what is "
            "appended there is Usher's own form, and nobody else would read it"
        )
    if not settings.ingest_topic and any(
        tenant.brings_events for tenants in settings.tenants.values() for tenant in tenants.values()
    ):
        yield (
            "USHER_TOPICS: webhooks and pollers need a topic without a source, to append to; add one, as in identity.events"
        )
    longest = _LONGEST_TOPIC - len(retry_topic(settings.group, ""))
    own = set(own_topics(settings.group, [topic.name for topic in settings.topics]))
    for topic in settings.topics:
        if topic.name in own:
            yield (
                f"USHER_TOPICS={topic}: with USHER_GROUP={settings.group} Usher writes its own records to a topic of that name; "
                "name another topic, or another group"
            )
        if len(topic.name) > longest:
            yield (
                f"USHER_TOPICS={topic}: with USHER_GROUP before it and -retry after it, which names a topic of Usher's own, it is "
                f"longer than the {_LONGEST_TOPIC} characters that Kafka takes; shorten the group's name"
            )
        if topic.tenant and topic.tenant not in settings.tenants_of(topic.source):
            yield (
                f"USHER_TOPICS={topic}: nothing is set for a tenant {topic.tenant!r}; set USHER_{topic.source.upper()}__"
                f"{topic.tenant.upper()}__…, or leave it out"
            )


def _limits(settings: Settings) -> Iterator[str]:
    """What a worker holds, and how much of it is sent at once."""
    if "sends_at_once" in settings.model_fields_set and settings.sends_at_once > settings.max_in_flight:
        yield (
            f"USHER_SENDS_AT_ONCE={settings.sends_at_once}: is more than the deliveries that a worker holds "
            f"(USHER_MAX_IN_FLIGHT={settings.max_in_flight}); lower it, or raise that"
        )


def _alike(settings: Settings) -> Iterator[str]:
    """Tenants whose events look alike: the wrong API would be asked about their users."""
    for system, tenants in settings.tenants.items():
        first: dict[str, str] = {}
        for name, tenant in tenants.items():
            title = f"{system}/{name}" if name else system
            if tenant.tenant is not None and (other := first.setdefault(tenant.tenant, title)) != title:
                yield (
                    f"USHER_{system.upper()}__{name.upper()}__…: {title} and {other}: events of both are of the tenant "
                    f"{tenant.tenant!r}, and look alike; set it up once (a secret's setting takes several, comma "
                    "separated)"
                )

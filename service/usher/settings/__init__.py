"""The settings of the service: the environment, a ``.env`` file and flags become one frozen, checked `Settings`.

The only reader of `os.environ`. Every mistake is found before anything starts, and all are reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from platformdirs import user_cache_path
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from usher.addresses import Address, MailSender, SqliteAddress
from usher.handler import Handler, nearest
from usher.kafka_options import NO_OPTIONS
from usher.outcome import RetryPolicy
from usher.proxies import Proxies
from usher.redact import know
from usher.registry import SYSTEMS
from usher.settings import values
from usher.settings.environment import FREE_GROUP, PREFIX, Environment, Leaf, leaves
from usher.settings.handlers import handler_settings
from usher.settings.http import HttpLimits, ProxyUse, take_proxies
from usher.settings.providers import MailDomains, MailFrom, SendGridSettings, SmtpSettings, TwilioSettings
from usher.settings.receipts import ReceiptSettings
from usher.settings.report import (
    SettingRow,
    SettingsError,
    current,
    is_short_secret,
    mistakes,
    option_row,
)
from usher.settings.secret_values import know_settings, secret_values
from usher.settings.tenant import TenantSettings
from usher.settings.tenants import read_tenants, tenant_model, tenant_prefix
from usher.settings.together import misfits
from usher.settings.values import SourceTopic

__all__ = [
    "Address", "ReceiptSettings", "SendGridSettings", "Settings", "SettingsError", "SmtpSettings", "SourceTopic", "TenantSettings",
    "TwilioSettings", "tenant_model", "tenant_prefix",
]  # fmt: skip


class Settings(BaseSettings):
    """All settings. `load` reads them from the environment; the constructor takes exactly what it is given."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    event_log: values.LogUrl = Field(
        SqliteAddress(Path("usher.db")),
        description="where events are: the embedded log, or `kafka://host:port[,host:port]`",
    )
    topics: values.Topics = Field(
        (SourceTopic("identity.events"),),
        description="the topics to read, comma separated; `topic=source` where a system's own events are in it, as in "
        "`identity.events,keycloak-admin=keycloak`",
    )
    group: values.Topic = Field(
        "usher", description="the consumer group; it also begins the names of Usher's own topics"
    )
    start_from: values.StartFrom = Field(
        "latest",
        description="where a new group starts on Kafka: `latest`, `earliest`, a time (ISO 8601 or Unix seconds); "
        "the embedded log starts at its beginning",
    )
    triggered_by: values.Triggers = Field(
        ("admin_api",),
        description="who has to trigger an event for handlers to run: values of `context.triggered_by`, unless a handler names its own",
    )
    handlers: values.Names = Field(
        (),
        description="the handlers to run, by name; default: all that are found but the optional ones. `+name`: this one as well",
    )
    handlers_dir: values.Folder | None = Field(None, description="a folder with handlers of your own, `*.py`")
    retry_delays: values.Delays = Field(
        (10.0, 60.0, 600.0, 3600.0),
        description="the waits between attempts, before a delivery is dead-lettered; `none`: one attempt",
    )
    http: values.HostPort = Field(
        Address("127.0.0.1", 8080), description="where webhooks, health and metrics are served; port 0: a free one"
    )
    shutdown_grace: values.Grace = Field(25.0, description="how long SIGTERM may take: drain, commit, leave")
    email: Literal["outbox", "sendgrid", "smtp"] = Field(
        "outbox", description="the provider of mail: `outbox`, `sendgrid`, `smtp`"
    )
    sms: Literal["outbox", "twilio"] = Field("outbox", description="the provider of SMS: `outbox`, `twilio`")
    outbox_dir: values.NewFolder = Field(
        Path("outbox"), description="the folder into which the outbox writes what would be sent"
    )
    templates_dir: values.Folder | None = Field(
        None, description="a folder with templates that replace the bundled ones"
    )
    mail_internal_domains: MailDomains = Field(
        (),
        description="mail domains of your own network, comma separated, as in `firma.local,intranet`, each with those below it: "
        "the SMTP server decides what can be delivered there",
    )
    mail_from: MailFrom = Field(
        MailSender("no-reply@example.com"),
        description="the From of mails, `Name <address>` allowed; needed unless mails go to the outbox",
    )
    service_name: values.Line = Field("our service", description="what messages call your service")
    login_url: values.Url | None = Field(None, description="the login page that messages link to")
    reset_url: values.Url | None = Field(
        default_factory=lambda given: given.get("login_url"),
        description="the page where a password is set anew; default: `USHER_LOGIN_URL`",
    )
    sendgrid: SendGridSettings = SendGridSettings()
    twilio: TwilioSettings = TwilioSettings()
    smtp: SmtpSettings = SmtpSettings()
    ingest_topic: str = Field(
        default_factory=lambda given: next((topic.name for topic in given.get("topics", ()) if not topic.source), ""),
        description="the topic that webhooks, pollers and `usher emit` append to; default: the first of `USHER_TOPICS` "
        "without a source",
    )
    http_limits: HttpLimits = HttpLimits()
    proxy: ProxyUse = Field(
        Proxies(),
        description="the proxy to providers and identity systems, `http://host:port`; `none`: no proxy. Default: "
        "`HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` of the environment",
    )
    dedupe_window: values.Duration = Field(
        600.0, description="a second arrival of an event within this time is not sent twice"
    )
    receipts: ReceiptSettings = ReceiptSettings()
    cache_dir: values.NewFolder = Field(
        default_factory=lambda: user_cache_path("usher"),
        description="the folder of what commands read once and can read again: the index of receipts; made where it is missing. "
        "Default: the platform's cache folder, `~/.cache/usher` on Linux",
    )
    sends_at_once: values.Count = Field(
        400, description="how many messages a worker sends at once; the others wait for their turn"
    )
    max_in_flight: values.Count = Field(
        10_000, description="how many deliveries a worker holds at once before it reads no more"
    )
    handler_gone_after: values.Duration = Field(
        900.0, description="how long parked deliveries wait for a handler that is gone, before they are dead-lettered"
    )
    undecodable_ratio: float = Field(
        0.5,
        ge=0,
        le=1,
        description="a partition rests when more than this share of its last 100 records are undecodable",
    )
    undecodable_at_least: values.Count = Field(20, description="… and at least so many of them")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="`debug`, `info`, `warning`, `error`"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`json`, `console`, or `auto`: readable on a terminal, JSON elsewhere"
    )
    kafka: values.Kafka = Field(NO_OPTIONS, exclude=True, repr=False)
    """The Kafka client's own options."""
    tenants: Mapping[str, Mapping[str, TenantSettings]] = Field({}, exclude=True, repr=False)
    """The tenants of identity systems for which anything is set: by system, by name. The first one has none, and is first."""
    handler_options: Mapping[str, Mapping[str, str]] = Field({}, exclude=True, repr=False)
    """What the environment says for handlers, by handler and field; `for_handlers` checks and types it."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: `load` reads the environment, so that a test never inherits one by accident."""
        return (init_settings,)

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, env_file: str | Path | None = ".env", **overrides: Any
    ) -> Self:
        """Read *environ* (default: the process's) over *env_file*; *overrides* win, and None among them means not given.

        An override is named like the field, with ``__`` before a group's: ``http="…"``, ``sendgrid__base_url="…"``.

        Raises:
            SettingsError: with every mistake.
        """
        dotenv = DotEnvSettingsSource(cls, env_file=env_file, case_sensitive=True).env_vars if env_file else {}
        given = {
            name: text for name, text in {**dotenv, **(os.environ if environ is None else environ)}.items() if text
        }
        found = Environment(given, cls)
        for name, value in overrides.items():
            if value is not None:
                found.put(tuple(name.split("__")), value)
        take_proxies(found, given)
        tenants = {system: read_tenants(system, texts, found.problems) for system, texts in found.tenants.items()}
        try:
            settings = cls(**found.values, kafka=found.kafka, handler_options=found.options, tenants=tenants)
        except ValidationError as error:
            found.problems += mistakes(error, found, leaves(cls))
        if found.problems:
            raise SettingsError(found.problems)
        know_settings(settings, settings.kafka.given, *settings.handler_options.values())
        return settings

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problems := tuple(misfits(self)):
            raise ValueError("\n".join(problems))
        return self

    @property
    def retry_policy(self) -> RetryPolicy:
        """What `USHER_RETRY_DELAYS` says for handlers without a policy of their own."""
        return RetryPolicy(self.retry_delays)

    @property
    def mails_at_once(self) -> int | None:
        """How many of the messages that are sent at once may be mails; None: all. An SMTP server has a limit of its own."""
        return self.smtp.connections if self.email == "smtp" else None

    @property
    def topic_names(self) -> tuple[str, ...]:
        """The topics to read, by name alone."""
        return tuple(topic.name for topic in self.topics)

    def tenants_of(self, system: str) -> Mapping[str, TenantSettings]:
        """Return the tenants of an identity system for which anything is set, by name; the one without a name is first."""
        return self.tenants.get(system, {})

    def check_handler_options(self, names: Iterable[str]) -> None:
        """See that every ``USHER_<HANDLER>__…`` is for one of the handlers *names*: all found, not only those that run.

        Raises:
            SettingsError
        """
        groups = {leaf.path[0] for leaf in leaves(type(self)) if len(leaf.path) > 1}
        known = [PREFIX + name.upper() for name in (*names, *groups, *SYSTEMS, FREE_GROUP)]
        strangers = [group for group in self.handler_options if PREFIX + group.upper() not in known]
        if strangers:
            raise SettingsError(
                f"{name}__{field.upper()}: there is no handler or setting {name}{nearest(name, known)}; correct or remove it"
                for name, group in ((PREFIX + group.upper(), group) for group in strangers)
                for field in self.handler_options[group]
            )

    def for_handlers(self, found: Iterable[Handler]) -> dict[str, BaseModel | None]:
        """The settings of each handler, by name: its own model, filled from the environment; None where it has none.

        What is set for other handlers is passed over: `check_handler_options` finds the misspelt ones.

        Raises:
            SettingsError: an unknown field, a value that is missing or wrong.
        """
        handlers = {handler.name: handler for handler in found}
        problems: list[str] = []
        models = {
            name: handler_settings(handler, self.handler_options.get(name, {}), problems)
            for name, handler in handlers.items()
        }
        if problems:
            raise SettingsError(problems)
        know("handlers", secret_values(models))
        return models

    def shown(self) -> list[SettingRow]:
        """Every setting as it is in force, secrets masked; the note is ``set`` or ``default``."""
        rows = [current(leaf, owner) for leaf, owner in self._in_force()]
        for group, options in sorted({**self.handler_options, FREE_GROUP: self.kafka.given}.items()):
            rows += [
                option_row(f"{PREFIX}{group.upper()}__{name.upper()}", text) for name, text in sorted(options.items())
            ]
        return rows

    def short_secrets(self, least: int) -> list[str]:
        """The names of the settings that hold a secret of fewer than *least* characters."""
        return [leaf.name for leaf, owner in self._in_force() if is_short_secret(leaf, owner, least)]

    def _in_force(self) -> Iterator[tuple[Leaf, BaseModel]]:
        """Go through all settings, each with the model that has its value."""
        yield from ((leaf, self) for leaf in leaves(type(self)))
        for system in SYSTEMS:
            for name, tenant in {"": tenant_model(system)(), **self.tenants_of(system)}.items():
                yield from ((leaf, tenant) for leaf in leaves(type(tenant), tenant_prefix(system, name)))

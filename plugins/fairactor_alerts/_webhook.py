"""Alerts to a URL. They are sent as tasks, so a receiver that is away gets them later."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import attrs

from fairactor import Message, Retry, actor
from fairactor.errors import ConfigurationError
from fairactor.plugins import check_name, check_seconds, shown

from ._alert import Alert

_RETRIES: Final = 20
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 600.0
_CLIENT_ERRORS: Final = range(400, 500)
_MAY_PASS: Final = (408, 425, 429)
"""Status codes of client errors that may be over later."""


class TellWebhook(Protocol):
    """The actor that sends requests to webhooks."""

    @property
    def name(self) -> str:
        """The name of the actor."""
        ...

    def __call__(self, name: str, body: dict[str, Any]) -> Message[None]:
        """Makes a message with the name of a webhook, and what it gets."""
        ...


@attrs.frozen(kw_only=True)
class Webhook:
    """A URL that gets each alert, as JSON in a POST request.

    The URL stays in this process: the task has the name of the webhook only.

    Raises:
        ConfigurationError: the URL is not one of http or https.
    """

    url: str = attrs.field(repr=False)  # it may contain a secret
    name: str = "webhook"
    """The name, if there are several."""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Headers of the request, such as ``Authorization``."""
    tenant: str = "fairactor-alerts"
    """The tenant whose tasks the requests are."""
    timeout: float = 10.0
    """The seconds that a request may take."""

    def __attrs_post_init__(self) -> None:
        parts = urlsplit(self.url) if isinstance(self.url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError("the url= of a webhook must begin with http:// or https://, and name a host")
        check_name("tenant", self.tenant)
        check_seconds("timeout", self.timeout, zero=False)

    def post(self, body: Mapping[str, Any]) -> None:
        """Sends a request.

        Raises:
            Retry: the receiver is away, or refuses for now.
            ConfigurationError: the receiver refuses for good.
        """
        headers = {"Content-Type": "application/json", "User-Agent": "fairactor", **self.headers}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), dict(headers), method="POST")  # noqa: S310 - the scheme was checked
        try:
            with urllib.request.urlopen(request, timeout=self.timeout):  # noqa: S310 - likewise
                return
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _CLIENT_ERRORS and error.code not in _MAY_PASS:
                    raise ConfigurationError(
                        f"webhook {self.name!r} was refused: {error.code} {error.reason}"
                    ) from None
                raise Retry(f"webhook {self.name!r}: {error.code} {error.reason}") from None
        except OSError as error:
            raise Retry(f"webhook {self.name!r}: {getattr(error, 'reason', error)}") from None


def body_of(alert: Alert) -> dict[str, Any]:
    """Returns what a webhook gets: the fields of the alert; ``text`` is what Slack and others show."""
    return {**attrs.asdict(alert), "since": alert.since.isoformat()}


def id_of(webhook: str, alert: Alert) -> str:
    """Returns the id of the task that tells an alert: always the same, so nobody is told twice."""
    parts = [webhook, alert.namespace, alert.rule, alert.subject, alert.state, alert.since.isoformat()]
    return f"alert:{sha256(json.dumps(parts).encode()).hexdigest()[:32]}"


def webhook_actor(webhooks: Mapping[str, Webhook]) -> TellWebhook:
    """Returns the actor that sends requests to webhooks, by their names."""

    @actor(
        name="fairactor_alerts.webhook",
        max_retries=_RETRIES,
        backoff=_FIRST_PAUSE,
        backoff_cap=_LONGEST_PAUSE,
        no_retry_on=ConfigurationError,
    )
    def tell(name: str, body: dict[str, Any]) -> None:
        if name not in webhooks:
            raise ConfigurationError(
                f"this process has no webhook {shown(name)}: give it the same alerts as the others"
            )
        webhooks[name].post(body)

    return tell

"""The plugin: it checks the rules again and again, in one runtime of the fleet at a time."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import anyio
import msgspec

from fairactor.errors import ConfigurationError, FairactorError
from fairactor.plugins import Host, check_name, check_seconds, read_lua, shown

from ._alert import Alert, Notify, State
from ._facts import NAME, read_facts
from ._rules import DEFAULT_RULES, Rule, read_rule
from ._webhook import TellWebhook, Webhook, body_of, id_of, webhook_actor

logger: Final = logging.getLogger(NAME)

EVERY: Final = 10.0
"""The seconds between two checks, by default."""
_TELLING: Final = 60.0
"""The seconds after which an alert is told again, if the runtime that told it has died or failed."""
_SHARD: Final = 0
"""The shard that keeps the alerts of a namespace."""
_LONGEST_SUBJECT: Final = 300
_SECTION: Final = ("every", "webhook", "headers")
_Where = tuple[str | int, ...]


class Alerts:
    """Checks rules, and tells people once for the whole fleet when one is broken, and when it is kept again.

    Give it to each runtime that may check: ``Runtime(plugins=[Alerts(notify=[Webhook(url=…)])])``. It is installed with
    fairactor; without rules it checks nothing, and `Runtime.health` says what others have found.

    Args:
        rules: the rules by name; None for one of each kind. A name names the rule in messages.
        notify: who is told: functions, also async ones, that get the `Alert`, and webhooks. Each alert is logged, too.
        every: the seconds between two checks.

    Raises:
        ConfigurationError: an argument is invalid, or two webhooks have the same name.
    """

    name = NAME
    section = "alerts"

    def __init__(
        self,
        rules: Mapping[str, Rule] | None = None,
        *,
        notify: Iterable[Notify | Webhook] = (),
        every: float = EVERY,
    ) -> None:
        self._rules: Final = dict(DEFAULT_RULES if rules is None else rules)
        for name, rule in self._rules.items():
            check_name("rule", name)
            if not isinstance(rule, Rule):
                raise ConfigurationError(f"rule {shown(name)}: {shown(rule)} is not a Rule")
        self._every: Final = check_seconds("every", every, zero=False)
        self._notify: Final = list(notify)
        self._webhooks: Final = {each.name: each for each in self._notify if isinstance(each, Webhook)}
        if len(self._webhooks) < sum(isinstance(each, Webhook) for each in self._notify):
            raise ConfigurationError("two webhooks have the same name: give each a name= of its own")
        for each in self._notify:
            if not isinstance(each, Webhook) and not callable(each):
                raise ConfigurationError(f"notify= has {shown(each)}: give functions and webhooks")
        self._sender: Final = webhook_actor(self._webhooks)

    # What fairactor asks of plugins

    @property
    def actors(self) -> Sequence[TellWebhook]:
        """See `fairactor.plugins.Actors`."""
        return [self._sender] if self._webhooks else []

    @property
    def scripts(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaScripts`."""
        return {script: read_lua(NAME, script) for script in ("watch", "note", "told", "firing", "memory")}

    @property
    def lua_keys(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaKeys`."""
        return {"alerts": "hash", "watcher:*": "string"}

    @asynccontextmanager
    async def lifespan(self, host: Host) -> AsyncIterator[None]:
        """Starts to check the rules."""
        if self._rules:
            host.supervise("alerts", _Watcher(host, self._rules, self._notify, self._sender, self._every).run)
        yield

    async def health_problems(self, host: Host) -> Sequence[str]:
        """See `fairactor.plugins.HealthReporter`: the alerts of all rules that are broken now."""
        flat = await host.call(f"{NAME}/firing", _SHARD)
        return sorted(
            f"alert {rule.decode()}: {text.decode()}" for rule, text in zip(flat[::2], flat[1::2], strict=True)
        )

    # Configuration files

    def check_section(self, table: Mapping[str, Any]) -> Iterable[tuple[_Where, str]]:
        """See `fairactor.plugins.Configurable`."""
        for key, value in table.items():
            if key == "headers" or (key in _SECTION) is not isinstance(value, Mapping):
                try:
                    _configured({key: value})
                except ConfigurationError as error:
                    yield (key,), str(error)
            else:
                wanted = "a value" if key in _SECTION else "a table with a rule, as in [alerts.slow]"
                yield (key,), f"{shown(value)}: give {wanted}"

    def configured(self, table: Mapping[str, Any]) -> Alerts:
        """See `fairactor.plugins.Configurable`."""
        return _configured(table)


def installed() -> Alerts:
    """Returns the plugin as it is installed: without rules, it checks nothing."""
    return Alerts({})


def _configured(table: Mapping[str, Any]) -> Alerts:
    rules = {name: read_rule(rule) for name, rule in table.items() if name not in _SECTION}
    webhooks = [Webhook(url=table["webhook"], headers=table.get("headers", {}))] if "webhook" in table else []
    return Alerts(rules or None, notify=webhooks, every=table.get("every", EVERY))


class _Watcher:
    """Checks rules, whenever it is this runtime's turn."""

    def __init__(
        self,
        host: Host,
        rules: Mapping[str, Rule],
        notify: Sequence[Notify | Webhook],
        sender: TellWebhook,
        every: float,
    ) -> None:
        self._sender = sender
        self._host = host
        self._rules = rules
        self._notify = notify
        self._every = every
        self._kinds = {rule.kind for rule in rules.values()}
        limits = {name: [rule.above, rule.clear, 1000 * rule.seconds] for name, rule in sorted(rules.items())}
        self._packed = msgspec.msgpack.encode(limits)
        self._digest = sha256(self._packed).hexdigest()[:16]
        self._failing = False

    async def run(self) -> None:
        """Checks again and again; until canceled."""
        while True:
            try:
                await self._check()
                self._failing = False
            except FairactorError as error:
                logger.log(logging.DEBUG if self._failing else logging.WARNING, "rules cannot be checked: %s", error)
                self._failing = True
            await anyio.sleep(self._every)

    async def _check(self) -> None:
        """Checks once, if no other runtime does."""
        lead = round(2500 * self._every)  # the next check of this runtime comes before it is over
        if await self._host.call(f"{NAME}/watch", _SHARD, self._host.name, self._digest, lead) != 1:
            return
        facts = await read_facts(self._host, self._kinds)
        if facts.health.stats is None:  # a shard does not answer: nothing is known, so no alert is over
            return
        found = [
            (name, subject[:_LONGEST_SUBJECT], value, rule.text(subject[:_LONGEST_SUBJECT], value))
            for name, rule in self._rules.items()
            for subject, value in rule.values(facts)
            if value >= rule.clear
        ]
        packed = msgspec.msgpack.encode(found)
        told = await self._host.call(f"{NAME}/note", _SHARD, self._packed, packed, round(1000 * _TELLING))
        for start in range(0, len(told), 5):
            await self._tell(*(part.decode() for part in told[start : start + 5]))

    async def _tell(self, name: str, subject: str, state: State, since: str, value: str) -> None:
        """Tells an alert to everybody, and then to the server that it was told."""
        rule = self._rules[name]
        alert = Alert(
            namespace=self._host.settings.namespace,
            rule=name,
            kind=rule.kind,
            subject=subject,
            state=state,
            value=float(value),
            above=rule.above,
            since=datetime.fromtimestamp(int(since) / 1000, UTC),
            text=rule.text(subject, float(value)),
        )
        if state == "firing":
            logger.warning("alert %s: %s", name, alert.text)
        else:
            logger.info("alert %s is over: %s", name, alert.text)
        if all([await self._told_to(each, alert) for each in self._notify]):
            await self._host.call(f"{NAME}/told", _SHARD, name, subject, since, state)

    async def _told_to(self, whom: Notify | Webhook, alert: Alert) -> bool:
        try:
            if isinstance(whom, Webhook):
                message = self._sender(whom.name, body_of(alert))
                await self._host.runtime.send(whom.tenant, message, id=id_of(whom.name, alert))
            else:
                told = whom(alert)
                if inspect.isawaitable(told):
                    await told
        except Exception:  # whatever it raises, the others are told, and it is told again later
            logger.exception("alert %s cannot be told to %r; trying again in %g s", alert.rule, whom, _TELLING)
            return False
        return True

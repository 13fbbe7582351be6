"""Rules and webhooks refuse what is wrong, and say what is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from fairactor_alerts import DEFAULT_RULES, KINDS, Alerts, Rule, Webhook

from fairactor.config import Config, InvalidConfig
from fairactor.errors import ConfigurationError


def test_there_is_a_rule_of_each_kind() -> None:
    assert {rule.kind for rule in DEFAULT_RULES.values()} == set(KINDS)
    assert all(rule.clear <= rule.above for rule in DEFAULT_RULES.values())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"kind": "oldest_wat"}, r"kind='oldest_wat' \(did you mean 'oldest_wait'\?\): give one of oldest_wait, "),
        ({"kind": "clock", "above": -1}, "above=-1: give a number, 0 or more"),
        ({"kind": "clock", "above": "1"}, "above='1': give a number"),
        ({"kind": "clock", "above": True}, "above=True: give a number"),
        ({"kind": "clock", "above": 1, "clear": 2}, "clear=2: give a number, not more than above=1"),
        ({"kind": "clock", "seconds": -1}, "seconds=-1: give a finite number of seconds"),
        ({"kind": "clock", "queue": "gpu"}, "only rules for oldest_wait and no_worker have a queue"),
    ],
)
def test_a_wrong_rule_is_refused(arguments: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Rule(**arguments)


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "host", None, 3])
def test_a_wrong_url_is_refused_without_showing_it(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="must begin with http:// or https://"):
        Webhook(url=url)
    assert "secret" not in repr(Webhook(url="https://host/secret"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"notify": [3]}, "notify= has 3: give functions and webhooks"),
        ({"notify": [Webhook(url="http://a"), Webhook(url="http://b")]}, "two webhooks have the same name"),
        ({"rules": {"a": 3}}, "rule 'a': 3 is not a Rule"),
        ({"every": 0}, "every=0: give a finite number of seconds, more than 0"),
    ],
)
def test_wrong_alerts_are_refused(arguments: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Alerts(**arguments)


def test_a_configuration_has_rules() -> None:
    table = {"webhook": "https://hooks.example/secret", "every": 5, "slow": {"kind": "oldest_wait", "above": 60}}
    config = Config.from_dict({"alerts": table})
    assert config.alerts == table
    assert [plugin.name for plugin in config.configured_plugins()] == ["fairactor_alerts"]


def test_all_mistakes_of_a_configuration_are_named() -> None:
    table = {"every": -1, "slow": {"kind": "oldest_wait", "abov": 60}, "webhok": "https://x", "fast": {"above": 1}}
    with pytest.raises(InvalidConfig) as raised:
        Config.from_dict({"alerts": table})
    text = str(raised.value)
    for problem in (
        "every=-1: give a finite number of seconds, more than 0",
        "a rule has no 'abov' (did you mean 'above'?)",
        "'https://x': give a table with a rule, as in [alerts.slow]",
        "kind= is missing: give one of oldest_wait",
    ):
        assert problem in text

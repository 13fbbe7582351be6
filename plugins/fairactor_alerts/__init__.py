"""Alerts: rules that are checked again and again, and messages to people when one is broken, once for a whole fleet."""

from ._alert import Alert, Notify
from ._plugin import Alerts, installed
from ._rules import DEFAULT_RULES, KINDS, Kind, Rule
from ._webhook import Webhook

__all__ = ["DEFAULT_RULES", "KINDS", "Alert", "Alerts", "Kind", "Notify", "Rule", "Webhook", "installed"]

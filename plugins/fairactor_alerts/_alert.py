"""What people are told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Literal

import attrs

State = Literal["firing", "resolved"]


@attrs.frozen(kw_only=True)
class Alert:
    """A rule that is broken, or is kept again. Each is told once, or twice if a runtime dies as it tells it."""

    namespace: str
    rule: str
    """The name of the rule."""
    kind: str
    """What the rule looks at, see `KINDS`."""
    subject: str
    """What is concerned: a queue, a tenant, a runtime, an actor; '' for the whole namespace."""
    state: State
    value: float
    """What was found last, in the unit of the kind."""
    above: float
    """From where on the rule is broken."""
    since: datetime
    """When it was broken first, by the server's clock."""
    text: str
    """All that in a sentence."""


Notify = Callable[[Alert], Awaitable[None] | None]
"""Tells people of an alert. If it raises, the alert is told again a minute later."""

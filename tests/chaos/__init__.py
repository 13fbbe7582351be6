"""Chaos: random faults at random moments, and what has to hold afterwards. ``python -m tests.chaos`` runs it.

Each seed plays a piece of its own, out of a `plan`: a server, a `proxy` before it, some workers, one who sends tasks,
and faults at moments that the seed decides. When they are over, `verdict` says what is not as it must be.

A seed is some processes. The one that has the `stage` never runs an event loop, so that it can fork workers: after the
imports, which take most of the time that a fresh one needs. One of those it forks has the `play`: the proxy, the sender
and the faults.
"""

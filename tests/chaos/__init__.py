"""Chaos: random faults at random moments, and what has to hold afterwards. ``python -m tests.chaos`` runs it.

Each seed runs its own `plan`: a server, a proxy before it, some workers, a sender of tasks, and faults at moments that
the seed decides. When the faults are over, `checks` reports everything that is not as it must be.

A seed takes several processes. The `harness` never runs an event loop, so that it can fork the others after the
imports, which take most of the time that a fresh process needs. It forks the workers, and the `workload`: the proxy,
the sender and the faults.
"""

"""Injects random faults at random moments and checks the results afterwards: ``python -m tests.chaos``.

Each seed runs its own `plan`: a server, a proxy in front of it, some workers, a sender of tasks, and faults at moments
that the seed decides. When the faults are over, `checks` reports every violation.

A seed takes several processes. The `harness` never runs an event loop, so that it can fork the other processes after
the imports, which take most of a new process's startup time. It forks the workers, the `auditor` and the `workload`:
the proxy, the sender and the faults.
"""

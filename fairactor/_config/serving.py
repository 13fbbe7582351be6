"""Checks that every known tenant and queue is served by somebody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal

import attrs

from fairactor._util.checks import DEFAULT_QUEUE, shown

from .mistakes import shown_path

Level = Literal["error", "warning"]
_ANY: Final = None  # a tenant that the configuration does not name


@attrs.frozen
class Finding:
    """Something that a configuration leaves undone."""

    level: Level
    """``error``: tasks of a tenant or a queue that the configuration names would wait for ever. ``warning``: some
    others would."""
    about: str
    """The tenant or the queue, such as ``tenants.acme``."""
    message: str
    """What is wrong, and what to do about it."""

    def __str__(self) -> str:
        return f"{self.level}: {self.about}: {self.message}"


@attrs.frozen
class Server:
    """A worker, as far as it matters here."""

    name: str
    workers: int
    assigned: frozenset[str]
    steal: frozenset[str] | bool
    queues: frozenset[str] | None

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> Server:
        """Makes one of the options of a worker."""
        steal, queues = options.get("steal") or (), options.get("queues")
        return cls(
            name,
            options.get("workers", 1),
            frozenset(options.get("assigned") or ()),
            steal if isinstance(steal, bool) else frozenset(steal),
            None if queues is None else frozenset(queues),
        )

    def serves_tenant(self, tenant: str | None) -> bool:
        """Whether it runs tasks of a tenant; None for one that nobody names."""
        if not self.workers:
            return False
        if self.steal is True or not (self.assigned or self.steal):
            return True
        return tenant in self.assigned or (not isinstance(self.steal, bool) and tenant in self.steal)

    def serves_queue(self, queue: str) -> bool:
        """Whether it runs tasks in a queue."""
        return bool(self.workers) and (self.queues is None or queue in self.queues)


@attrs.frozen
class Route:
    """Where tasks may go: a tenant or None for any, and a queue."""

    about: str
    tenant: str | None
    queue: str


def find_unserved(servers: Iterable[Server], tenants: Iterable[str], routes: Iterable[Route]) -> Iterator[Finding]:
    """Yields what nobody serves.

    Args:
        servers: the workers.
        tenants: the tenants that the configuration names.
        routes: where tasks may go, of schedules and actors for example.
    """
    servers, tenants, routes = list(servers), sorted(set(tenants)), list(routes)
    if not any(server.workers for server in servers):
        yield Finding("error", "workers", "no worker runs tasks: give a number of workers above 0")
        return
    for tenant in tenants:
        if not any(server.serves_tenant(tenant) for server in servers):
            yield Finding(
                "error",
                shown_path(("tenants", tenant)),
                "no worker serves this tenant: all are dedicated to others. Assign it to one, or let one steal from "
                "all (steal = true)",
            )
    if not any(server.serves_tenant(_ANY) for server in servers):
        yield Finding(
            "warning",
            "tenants",
            "all workers are dedicated to certain tenants, so nobody serves those that are not named here. Let one "
            "steal from all (steal = true)",
        )
    yield from _queues(servers, routes)
    yield from _pairs(servers, tenants, routes)


def _queues(servers: list[Server], routes: list[Route]) -> Iterator[Finding]:
    named: dict[str, str] = {}
    for route in routes:
        named.setdefault(route.queue, route.about)
    for queue, about in sorted(named.items()):
        if not any(server.serves_queue(queue) for server in servers):
            yield Finding("error", about, f"no worker serves its queue {shown(queue)}: add it to the queues of one")
    if DEFAULT_QUEUE not in named and not any(server.serves_queue(DEFAULT_QUEUE) for server in servers):
        yield Finding(
            "warning",
            f"queues.{DEFAULT_QUEUE}",
            f"all workers name their queues, and none serves {DEFAULT_QUEUE!r}, the queue of tasks that name none",
        )


def _pairs(servers: list[Server], tenants: list[str], routes: list[Route]) -> Iterator[Finding]:
    """Yields tenants whose workers do not serve a queue that others serve."""
    for route in routes:
        if route.tenant is None:
            continue
        by_tenant = [server for server in servers if server.serves_tenant(route.tenant)]
        by_queue = [server for server in servers if server.serves_queue(route.queue)]
        if by_tenant and by_queue and not any(server in by_tenant for server in by_queue):
            yield Finding(
                "error",
                route.about,
                f"the workers that serve tenant {shown(route.tenant)} do not serve queue {shown(route.queue)}",
            )
    for tenant in tenants:
        own = [server for server in servers if server.serves_tenant(tenant)]
        others = [server for server in servers if server.serves_queue(DEFAULT_QUEUE)]
        if own and others and not any(server in own for server in others):
            yield Finding(
                "warning",
                shown_path(("tenants", tenant)),
                f"no worker that serves this tenant serves the queue {DEFAULT_QUEUE!r}",
            )

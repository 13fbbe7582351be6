"""The part of the model that decides which tenant the runtimes of a kind serve next: tags, homes and debts."""

from __future__ import annotations

from collections.abc import Collection

import attrs

from .model_rules import GROUP, Rules
from .model_tasks import Task


class UndecidedError(Exception):
    """The tag of a group is ambiguous: tenants of different homes bring or move the group in the same step."""


@attrs.define
class Ring:
    virtual: float = 0.0
    tags: dict[str, float] = attrs.Factory(dict)


@attrs.define
class Home:
    """A runtime that serves certain tenants only."""

    virtual: float
    assigned: frozenset[str]
    steal: frozenset[str]


@attrs.define
class Service:
    """The service that the runtimes of one kind give."""

    rules: Rules
    kind: str = "0"
    root: Ring = attrs.Factory(Ring)
    groups: dict[str, Ring] = attrs.Factory(dict)
    homes: dict[str, Home] = attrs.Factory(dict)
    owing: list[str] = attrs.Factory(list)
    capped: bool = False  # whether the runtime of this turn can start only so many tasks of some actors
    sorts: bool = False  # whether this turn has moved tasks to the lanes in which they belong
    passed: set[str] = attrs.Factory(set)  # tenants that this turn passes over for that
    came: dict[str, float] = attrs.Factory(dict)  # group that joins in this step -> virtual time at which it joined

    # Who may be served

    def ring_of(self, member: str) -> Ring:
        mark = self.rules.mark(member)
        return self.root if mark is None else self.groups.setdefault(mark, Ring())

    def withdraw(self, name: str, mark: str | None) -> None:
        """Takes a tenant that changes its group off the ring where it stood."""
        ring = self.root if mark is None else self.groups.get(mark, Ring())
        ring.tags.pop(name, None)

    @property
    def served(self) -> dict[str, float]:
        """The tenants on all rings, with their tags."""
        return {
            name: tag
            for ring in (self.root, *self.groups.values())
            for name, tag in ring.tags.items()
            if name[:1] != GROUP
        }

    def seat(self, name: str, *, belongs: bool, pays: bool = True) -> None:
        """Adds a tenant to its ring or removes it. Unless it ``pays``, its debt stays for later."""
        tags = self.ring_of(name).tags
        if not belongs:
            tags.pop(name, None)
        elif name not in tags and pays:
            self._enter(name)
        elif name not in tags:
            self._enter_unpaid(name)

    def _enter(self, name: str) -> None:
        mark = self.rules.mark(name)
        if mark is None:
            self.root.tags[name] = self.fresh_tag(name)
            return
        self.groups[mark].tags[name] = self.fresh_tag(name)
        time = self.home_time(name)
        time = self.root.virtual if time is None else time
        if mark not in self.root.tags:
            self.root.tags[mark] = time + self.cost_to_arrive(mark) / self.rules.weight(mark)
            self.came[mark] = time
        elif self.came.get(mark, time) != time:
            raise UndecidedError

    def _enter_unpaid(self, name: str) -> None:
        """Adds a tenant in a script that acts for another kind. A group enters at the time of the whole ring."""
        rules, mark = self.rules, self.rules.mark(name)
        self.ring_of(name).tags[name] = self.time_for(name) + rules.usual_cost(name) / rules.weight(name)
        if mark is not None and mark not in self.root.tags:
            self.root.tags[mark] = self.root.virtual + rules.usual_cost(mark) / rules.weight(mark)

    def fresh_tag(self, name: str) -> float:
        """Returns the tag of a tenant that joins a ring."""
        return self.time_for(name) + self.cost_to_arrive(name) / self.rules.weight(name)

    def time_for(self, name: str) -> float:
        """Returns the virtual time that applies to a tenant on its ring."""
        ring, home = self.ring_of(name), self.home_time(name)
        return home if home is not None and ring is self.root else ring.virtual

    def hasten(self, member: str, time: float) -> None:
        """Makes a greater weight count at once."""
        tags = self.ring_of(member).tags
        if member in tags:
            tags[member] = min(tags[member], time + self.rules.usual_cost(member) / self.rules.weight(member))

    def clear(self) -> None:
        """Takes all tenants off the rings."""
        self.root.tags.clear()
        self.groups.clear()

    def drop_empty_groups(self) -> None:
        """Removes groups without work."""
        for mark, ring in list(self.groups.items()):
            if not ring.tags:
                del self.groups[mark]
                self.root.tags.pop(mark, None)

    def restart(self) -> None:
        """Resets virtual time when nobody waits."""
        if not self.root.tags:
            self.root.virtual = 0.0
            for home in self.homes.values():
                home.virtual = 0.0

    # Service

    def open_to(self, runtime: str) -> tuple[Collection[str], Home | None, bool]:
        """Returns the tenants that a runtime may serve now, its home if they belong to it, and whether it steals."""
        served, home = (
            {name: tag for name, tag in self.served.items() if name not in self.passed},
            self.homes.get(runtime),
        )
        if home is None:
            return served, None, False
        if own := served.keys() & home.assigned:
            return own, home, False
        return (served if "" in home.steal else served.keys() & home.steal), None, True

    def serve(self, name: str, runtime: str, cost: float) -> None:
        """Starts a task of a tenant; asserts that it is the turn of that tenant."""
        among, home, steals = self.open_to(runtime)
        assert name in among, f"{name!r} cannot be served: {among}"
        mark, member = self.rules.mark(name), self.rules.member(name)
        tag = self.root.tags[member]
        least = min(self.root.tags[self.rules.member(other)] for other in among)
        found = f"{member!r} is served at {tag}, and {least} would come first: {self.root.tags}"
        assert tag == least or self.sorts, found  # a turn that moves tasks to their lanes may read too few tenants
        if mark:
            inner = self.groups[mark]
            least = min(inner.tags[other] for other in among if other in inner.tags)
            assert inner.tags[name] == least, f"{name!r} is served out of turn in its group: {inner.tags}"
            inner.virtual = max(inner.virtual, least)
            inner.tags[name] = (inner.virtual if self.capped else least) + cost / self.rules.weight(name)
        if home:
            home.virtual = max(home.virtual, tag)
        elif not steals or self.home_time(name) is None:
            self.root.virtual = max(self.root.virtual, tag)
        if self.capped:  # it must not catch up with what it has missed
            tag = max(tag, home.virtual if home else self.root.virtual)
        self.root.tags[member] = tag + cost / self.rules.weight(member)
        self.rules.stolen += steals
        self.rules.count_start(name)

    def charge(self, task: Task | None) -> None:
        """Charges a tenant for a task that did not wait its turn, if the tenant has a place on a ring."""
        for whose in filter(None, (task.tenant, self.rules.mark(task.tenant))) if task else ():
            tags = self.ring_of(whose).tags
            if whose in tags:
                tags[whose] += task.charged / self.rules.weight(whose)

    # Homes

    def home_time(self, name: str) -> float | None:
        """Returns the latest time of a tenant's homes, or the shard's if that is later; None without a home."""
        times = [home.virtual for home in self.homes.values() if name in home.assigned]
        return max(self.root.virtual, *times) if times else None

    def assign(self, runtime: str, serves: tuple[list[str], list[str]] | None) -> frozenset[str]:
        """Assigns tenants to a runtime; returns those that were added or removed."""
        home = self.homes.pop(runtime, None)
        had = home.assigned if home else frozenset()
        has = frozenset(serves[0] if serves else ())
        time = max(home.virtual, self.root.virtual) if home else self._first_time(has)
        if serves is not None:
            self.homes[runtime] = Home(time, has, frozenset(serves[1]))
        self.move(has - had, time)
        self.move(had - has)
        return had ^ has

    def _first_time(self, names: Collection[str]) -> float:
        """Returns the initial virtual time of a home."""
        tags = [self.root.tags[member] for member in map(self.rules.member, names) if member in self.root.tags]
        times = [time for time in map(self.home_time, names) if time is not None]
        return max(self.root.virtual, min(tags) if tags else max(times, default=0.0))

    def move(self, names: Collection[str], time: float | None = None) -> None:
        """Clamps the tags of tenants that joined a home to its time, or of those that left one to what applies now."""
        held: dict[str, float] = {}
        for name in names:
            member, left = self.rules.member(name), self.home_time(name)
            start = time if time is not None else self.root.virtual if left is None else left
            if member in self.root.tags:
                if held.setdefault(member, start) != start:
                    raise UndecidedError
                latest = start + self.rules.usual_cost(member) / self.rules.weight(member)
                self.root.tags[member] = min(max(self.root.tags[member], start), latest)

    def come_home(self, runtime: str) -> None:
        """Starts a home's selection: raises the tags of its tenants to its virtual time."""
        home = self.homes[runtime]
        home.virtual = max(home.virtual, self.root.virtual)
        for member in map(self.rules.member, self.served.keys() & home.assigned):
            self.root.tags[member] = max(self.root.tags[member], home.virtual)

    # Costs

    def cost_to_arrive(self, member: str) -> float:
        """Returns what to charge a tenant that joins a ring; this includes its debt, which it pays so."""
        if not self.rules.by_time:
            return 1
        debt = self.rules.costs_of(member).debts.pop(self.kind, 0.0)
        return max(0, self.rules.usual_cost(member) + debt)

    def owe(self, name: str, seconds: float) -> None:
        """Adds these seconds to the debt of a tenant and of its group."""
        if seconds:
            for whose in filter(None, (name, self.rules.mark(name))):
                debts = self.rules.costs_of(whose).debts
                debts[self.kind] = debts.get(self.kind, 0.0) + seconds
                self.owing.append(whose)

    def pay(self) -> None:
        """Adds the debts of tenants and groups to their tags, if they are on a ring."""
        for whose in self.owing:
            tags = self.ring_of(whose).tags
            if whose in tags:
                tags[whose] += self.rules.costs_of(whose).debts.pop(self.kind, 0.0) / self.rules.weight(whose)
        self.owing.clear()

    def forgive(self) -> None:
        for costs in self.rules.costs.values():
            costs.debts.pop(self.kind, None)

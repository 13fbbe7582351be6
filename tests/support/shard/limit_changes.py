"""What the machine for limits changes: limits, what starts took of them, and tenants."""

from __future__ import annotations

import math
from typing import Any

from fairactor._model.lane import text_in_json
from fairactor._model.limit import limit_changes
from fairactor._model.wire import GROUP_MARK

from .limit_machine_base import ACTORS, LIMITS, TENANTS, LimitMachineBase
from .limit_operations import NO_POLICY


class LimitChanges(LimitMachineBase):
    # Limits

    def change_limit(self, name: str, changes: dict[str, Any], *, tenant: str = "", pause: str = "") -> None:
        self.driver.run(self.driver.shard.change_limit(text_in_json(name), changes, tenant=tenant, pause=pause))

    def configure(self, name: str, given: dict[str, Any]) -> None:
        changes = limit_changes(given)
        self.change_limit(name, changes)
        own = {**self.book.own.get(name, {}), **changes}
        own = {setting: list(value) if isinstance(value, tuple) else value for setting, value in own.items()}
        own = {setting: value for setting, value in own.items() if value is not None}
        self.change_settings(name, own, self.book.declared.get(name))
        self.check()

    def remove(self, name: str) -> None:
        self.driver.run(self.driver.shard.reset_limit(text_in_json(name)))
        self.change_settings(name, None, self.book.declared.get(name))
        self.book.resume(name)
        self.check()

    def pause(self, name: str, tenant: str, pause: str) -> None:
        field = f"{name}\x1f{tenant}" if tenant else name
        self.book.paused[field] = math.inf if pause == "-1" else self.now + int(pause) / 1000
        self.change_limit(name, {}, tenant=tenant, pause=pause)
        self.check()

    def resume(self, name: str, tenant: str) -> None:
        self.book.paused.pop(f"{name}\x1f{tenant}" if tenant else name, None)
        self.change_limit(name, {"paused": None}, tenant=tenant)
        self.check()

    def declare(self, actor: str, given: dict[str, Any]) -> None:
        changes = limit_changes(given)
        self.driver.run(self.driver.shard.declare_limits({actor: changes}))
        declared = {setting: list(value) if isinstance(value, tuple) else value for setting, value in changes.items()}
        self.change_settings(actor, self.book.own.get(actor), declared)
        self.check()

    def charge(self, who: int, which: int, name: str, used: float) -> None:
        runtime = self.runtime(who)
        held = self.runtimes[runtime].held
        if not held:
            return
        task = list(held)[which % len(held)]
        claim = held[task]
        for _ in range(2):
            found = self.driver.run(self.driver.shard.charge(runtime, task, text_in_json(name), float(used)))
            assert found == self.book.charge(claim.taken, name, claim.tenant, float(used), self.now)
            self.check()

    def charge_late(self, name: str) -> None:
        """Charges for a task that does not run here."""
        runtime = self.runtime(0)
        waiting = [task for task in self.alive if task not in self.runtimes[runtime].held]
        task = waiting[0] if waiting and not self.runtimes[runtime].missed else "gone"
        assert self.driver.run(self.driver.shard.charge(runtime, task, text_in_json(name), 7.0)) == 0
        self.check()

    # Tenants

    def policy(self, tenant: str, changes: dict[str, Any]) -> None:
        self.driver.configure(tenant, **changes)
        self.check()

    def policy_of_group(self, group: str, weight: float | None) -> None:
        self.driver.configure((GROUP_MARK + group).encode(errors="surrogateescape"), weight=weight)
        self.check()

    def cancel(self, which: int) -> None:
        if not self.alive:
            return
        task = list(self.alive)[which % len(self.alive)]
        state = self.driver.run(self.driver.shard.cancel(task, "", ttl=0, body=b"canceled"))
        if state == "started":
            self.canceling.add(task)
        else:
            self.ended(task)
        self.check()

    def purge(self, tenant: str) -> None:
        running = {task for runtime in self.runtimes.values() for task in (*runtime.held, runtime.missed)}
        gone = [task for task, own in self.alive.items() if own == tenant and task not in running]
        number = self.driver.run(self.driver.shard.purge(tenant, ttl=0, body=b"canceled"))
        for task in gone:
            self.ended(task)
        assert number == len(gone)
        self.check()

    # The end

    def lift_all(self) -> None:
        """Lifts all limits."""
        for actor in ACTORS:
            self.declare(actor, {})
        for name in LIMITS:
            self.remove(name)
        for tenant in TENANTS:
            self.policy(tenant, NO_POLICY)

    def check_kept(self) -> None:
        """Checks that nothing is kept of limits that nobody needs."""
        snapshot = self.snapshot
        for name in ("LIMIT_STARTED", "LIMIT_DUES", "LIMIT_BUSY", "LIMIT_CLOCKS", "HELD_BACK"):
            assert not snapshot.fixed[name], f"{name} keeps {snapshot.fixed[name]}"
        for found in (snapshot.lines, snapshot.lines_of, snapshot.line, snapshot.line_group, snapshot.line_groups):
            assert not found, f"lines are kept: {found}"
        left = {name for name, packed in snapshot.fixed["LIMIT_SETTINGS"].items() if packed != b"\x90"}
        assert left <= set(snapshot.fixed["ROUTES"]), f"settings are kept of {left}"

"""Runs a seed on a group of servers: a cluster, or a primary with sentinels."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import anyio.to_thread
from fairactor_dependencies import _send

from fairactor._model.keys import Keys
from tests.support.proxy import group_proxy
from tests.support.server_groups import Cluster, Group, Watched

from .auditor import direct_driver
from .disturbances import Setup
from .disturber import Disturber
from .group_auditor import audit_group
from .group_plan import SHARDS
from .group_workload import GroupWorkload
from .growing import GATE
from .harness import Harness
from .harness_client import HarnessClient
from .plan import Plan
from .shards import Shards
from .workload import Serving, Workload
from .workload_process import Open

GROUPS: Final = {Setup.CLUSTER: Cluster, Setup.SENTINEL: Watched}


class GroupHarness(Harness):
    """The processes of one seed, and the servers."""

    def __init__(self, plan: Plan, group: Group, folder: Path) -> None:
        super().__init__(plan, None, folder)
        self._group = group

    def _execute(self, order: dict[str, Any]) -> None:
        if order["do"] != "member":
            super()._execute(order)
            return
        self._group.control(order["number"], order["call"])
        self._send({"member": order["call"]})

    def _open_workload(self, plan: Plan) -> Open:
        return partial(on_group, plan, self._group)

    def _audit_all(self) -> None:
        audit_group(self._group, SHARDS[self._plan.setup], str(self._notes))


@asynccontextmanager
async def on_group(
    plan: Plan, group: Group, harness: HarnessClient, note: Callable[[str], None]
) -> AsyncIterator[Workload]:
    """Opens a workload on a group of servers, which it forms first."""
    async with group_proxy(group.proxied(), Random(f"{plan.seed} proxy")) as before:
        began = time.monotonic()
        await anyio.to_thread.run_sync(group.form)
        note(f"the servers are a group after {time.monotonic() - began:.1f} s")
        shards = SHARDS[plan.setup]
        keys = [Keys("fairactor", number).meta for number in range(shards)]
        opened = partial(_drivers, group, keys)
        serving = Serving(
            group.url, Shards(opened, has_all=False), lambda: [each.db for each in group.servers if each.up]
        )
        _send._GATE_TIMEOUT = GATE
        disturber = Disturber(group, keys, harness.member, note)
        yield GroupWorkload(plan, harness, before, serving, note, disturber)


def _drivers(group: Group, keys: list[str]) -> list[Any]:
    return [direct_driver(f"unix://{home.socket}", number) for number, home in enumerate(group.homes(keys))]

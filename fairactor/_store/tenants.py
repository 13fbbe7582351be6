"""The tenants of a shard: their policies and counts, and all waiting tasks of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import anyio
import msgspec

from fairactor._model.counts import Counts
from fairactor._model.wire import PackedPolicy, unpack_policy, whole_ms

from .script_runner import ScriptRunner

_MOVES: Final = 0.01
"""Seconds after which to look again at tasks that are on their way to another shard."""


class Tenants:
    """The methods of `Shard` for the scripts about one tenant, and about policies."""

    _runner: ScriptRunner
    _run: Any

    async def configure(self, name: str | bytes, changes: Mapping[str, Any]) -> PackedPolicy:
        """Changes the policy of a tenant or a group, or the defaults; returns the new policy.

        Args:
            name: the tenant, the group or the defaults, as configure.lua names them.
            changes: packed settings, from `policy.changes_of`. None resets a setting.
        """
        given = msgspec.msgpack.encode({key: value for key, value in changes.items() if value is not None})
        reset = [key for key, value in changes.items() if value is None]
        return unpack_policy(await self._runner.run_for_tenant("configure", name, given, *reset))

    async def review(self) -> None:
        """Checks again which tenants can be served, after the defaults have changed."""
        cursor = b"0"
        while (cursor := await self._run("review", cursor)) != b"0":
            pass

    async def policies(self) -> dict[bytes, PackedPolicy]:
        """Returns all policies that were configured, by the names that `configure` uses."""
        found, cursor = {}, b"0"
        while True:
            cursor, flat = await self._run("policies", cursor)
            names = iter(flat)
            found.update({name: unpack_policy(packed) for name, packed in zip(names, names, strict=True)})
            if cursor == b"0":
                return found

    async def policy(self, tenant: str) -> tuple[PackedPolicy, PackedPolicy]:
        """Returns the policy of a tenant, and the defaults."""
        run = self._runner.run_for_tenant if tenant else self._run
        _, own, defaults, _ = await run("stats", tenant)
        return unpack_policy(own), unpack_policy(defaults)

    async def purge(self, tenant: str, *, ttl: float, body: bytes) -> int:
        """Cancels the waiting tasks of a tenant; returns how many it has canceled."""
        number, cursor = 0, b"0"
        before = b""
        while cursor:
            canceled, cursor = await self._run("purge", tenant, whole_ms(ttl), body, cursor)
            number += canceled
            if not canceled and cursor:
                await anyio.sleep(0 if cursor != before else _MOVES)
            before = cursor
        return number

    async def tenant_stats(self, tenant: str) -> Counts:
        """Returns the counts of a tenant."""
        counts, _, _, queued = await self._run("stats", tenant)
        return Counts.unpack(counts, queued=queued)

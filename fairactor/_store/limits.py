"""The limits of a shard: how they are changed, read and charged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fairactor._model.lane import text_in_json
from fairactor._model.limit import PackedLimit
from fairactor._model.wire import unpack_policy

from .script_runner import ScriptRunner

_REOPENED_AT_ONCE: Final = 200
"""About how many lines one call lets look again."""

Description = tuple[PackedLimit, int, float, int]
"""Settings of a limit, tasks that run, µs until what was taken is paid for, tenants that wait."""


class Limits:
    """The methods of `Shard` for the scripts about limits. They name limits as JSON text without quotation marks."""

    _runner: ScriptRunner
    _run: Any

    async def change_limit(
        self, name: str, changes: Mapping[str, Any], *, tenant: str = "", pause: str = ""
    ) -> PackedLimit:
        """Changes settings of a limit; returns the new ones.

        Args:
            name: the limit.
            changes: packed settings, from `limit_changes`. None resets a setting.
            tenant: the tenant whose instance to change; '' for the limit itself.
            pause: the ms for which to pause it, '-1' without an end; '' leaves a pause as it is.
        """
        given = msgspec.msgpack.encode({key: value for key, value in changes.items() if value is not None})
        reset = msgspec.msgpack.encode([key for key, value in changes.items() if value is None])
        run = self._runner.run_for_tenant if tenant else self._run
        packed, _, reopens = await run("limit", name, tenant, given, pause, reset)
        if reopens:
            await self._reopen()
        return unpack_policy(packed)

    async def reset_limit(self, name: str) -> None:
        """Removes all settings of a limit, and those of tenants' instances; what actors declare stays."""
        cursor = b"0"
        while cursor:
            _, cursor, _ = await self._run("limit", name, "", msgspec.msgpack.encode({}), "", "", cursor)

    async def declare_limits(self, declared: Mapping[str, PackedLimit]) -> None:
        """Notes what the code of actors says about their limits, by actor."""
        flat: list[str | bytes] = []
        for name, settings in declared.items():
            flat += (text_in_json(name), msgspec.msgpack.encode(settings) if settings else b"")
        if flat and await self._run("declare_limits", *flat):
            await self._reopen()

    async def _reopen(self) -> None:
        """Lets all lines look again, in steps. If this breaks off, the next call of it goes on."""
        while await self._run("reopen", _REOPENED_AT_ONCE):
            pass

    async def limits(self, name: str = "", tenant: str = "") -> tuple[float, dict[bytes, Description]]:
        """Returns the time in ms, and what is known of a limit, or of all; see limits.lua."""
        described: dict[bytes, tuple[PackedLimit, float, int]] = {}
        running: dict[bytes, int] = {}  # limit or instance -> tasks that run
        now, limits, started = b"0", b"0", b"0"
        while limits or started:
            now, flat, limits, counts, started = await self._run("limits", name, tenant, limits, started)
            parts, numbers = iter(flat), iter(counts)
            for field, packed, owed, waiting in zip(parts, parts, parts, parts, strict=True):
                described[field] = unpack_policy(packed), float(owed), int(waiting)
            running |= {field: int(number) for field, number in zip(numbers, numbers, strict=True)}
            limits, started = (b"" if cursor == b"0" else cursor for cursor in (limits, started))
        sums: Counter[bytes] = Counter()
        for field, number in running.items():
            sums[field if tenant else field.partition(b"\x1f")[0]] += number
        found = {field: (packed, sums[field], owed, waiting) for field, (packed, owed, waiting) in described.items()}
        return float(now), found

    async def charge(self, runtime: str, task_id: str, name: str, used: float) -> int:
        """Corrects what the start of a task took of a limit; returns 1, or 0 or -1 as charge.lua says."""
        return int(await self._run("charge", runtime, task_id, name, repr(used)))

"""Tests the first limit of a namespace, which a turn meets when it releases a step of a graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fairactor_dependencies import result

from fairactor import Runtime, actor


@actor
async def double(number: int) -> int:
    return number * 2


@pytest.mark.anyio
@pytest.mark.parametrize("steps", [1, 2])
async def test_steps_whose_limit_is_not_known_yet_run(steps: int, make_runtime: Callable[..., Runtime]) -> None:
    async with make_runtime(double) as runtime:
        limited = double(result()).options(limits="api")
        run = await runtime.send("acme", double(1) >> [limited, double(result()).options(limits="api")][:steps])
        assert await run.result(5) == (4 if steps == 1 else [4, 4])

"""The operations that `tests.support.shard.limit_machine` draws from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

from fairactor._model.wire import Assignment

from .limit_machine_base import ACTORS, LIMITS, TENANTS

HOUR: Final = 3_600_000  # ms
SETTINGS: Final[Sequence[dict[str, Any]]] = (
    {"concurrency": 1}, {"concurrency": 2}, {"concurrency": 3, "per": "tenant"}, {"concurrency": 1, "per": "tenant"},
    {"concurrency": None}, {"per": None}, {"per": "tenant"}, {"rate": "60/h", "burst": 5}, {"rate": "6/h", "burst": 2},
    {"rate": "60/h", "burst": 3, "per": "tenant"}, {"rate": "4/h"}, {"rate": None}, {"rate": math.inf},
    {"concurrency": math.inf}, {"concurrency": None, "rate": None, "per": None}, {"rate": "200/h"},
)  # fmt: skip
DECLARED: Final[Sequence[dict[str, Any]]] = (
    {}, {"concurrency": 1}, {"concurrency": 2, "per": "tenant"}, {"rate": "60/h", "burst": 2}, {"rate": "6/h"},
    {"concurrency": 1, "rate": "60/h"},
)  # fmt: skip
POLICIES: Final[Sequence[dict[str, Any]]] = (
    {"concurrency": 1}, {"concurrency": 2}, {"concurrency": None}, {"rate": ["60/h", 6e7, 2]}, {"rate": None},
    {"rate": None}, {"paused": True}, {"paused": None}, {"paused": None}, {"weight": 3.0}, {"weight": None},
    {"group": "g"}, {"group": None}, {"group": "h"},
    dict.fromkeys(("concurrency", "weight", "rate", "paused", "group")),
)  # fmt: skip
NO_POLICY: Final = POLICIES[-1]
DERIVED: Final = (
    "RING", "LIMIT_STARTED", "LIMIT_CLOCKS", "HELD_BACK", "LANES", "THROTTLED", "GROUPS", "COUNTS", "IDLE",
)  # fmt: skip
DERIVED_PREFIXES: Final = (
    "lines:",
    "lines-of:",
    "line:",
    "line-groups:",
    "line-group:",
    "lanes-of:",
    "in-lane:",
    "ring:",
)
Operation = tuple[str, tuple[Any, ...]]

pick = st.integers(0, 999)
tenants, limit_names, actors = st.sampled_from(TENANTS), st.sampled_from(LIMITS), st.sampled_from(ACTORS)
anybody = st.sampled_from(["", "", *TENANTS])
costs = st.dictionaries(st.sampled_from(LIMITS[:3]), st.sampled_from([1, 1, 1, 2, 5, 0.5]), max_size=2)
outcomes = st.lists(
    st.tuples(pick, st.sampled_from([*"FFFFFFXCRRBUV"]), st.sampled_from([0, 0, HOUR])), min_size=0, max_size=6
)
rooms = st.sampled_from([None, None, None, (2, 0), (1, 2), (0, 1), (6, 3)])
wants = st.sampled_from([0, 1, 2, 5, 5, 20])
serves = st.sampled_from([
    None, None, None, None, Assignment(["a", "b"], [""]), Assignment(["a", "g1"], []), Assignment(["b"], ["c"]),
])  # fmt: skip


def operations(share: int, name: str, *arguments: st.SearchStrategy[Any]) -> list[st.SearchStrategy[Any]]:
    return [st.tuples(st.just(name), st.tuples(*arguments)) for _ in range(share)]


OPERATIONS: Final = [
    *operations(
        8, "send", st.lists(tenants, min_size=1, max_size=3), actors, st.sampled_from([None, None, None, "gpu"]), costs,
        st.sampled_from([1, 3, 3, 6]), st.sampled_from(["", "", "", "", "+20"]),
        st.sampled_from([("", False), ("", False), ("", False), ("k", False), ("k", True)]), st.integers(1, 3),
    ),
    *operations(2, "send_one", tenants, actors, st.booleans()),
    *operations(12, "turn", pick, wants, outcomes, rooms),
    *operations(5, "finish", pick, wants, rooms),
    *operations(1, "turn_again", pick),
    *operations(6, "awaken"),
    *operations(5, "configure", limit_names, st.sampled_from(SETTINGS)),
    *operations(1, "remove", limit_names),
    *operations(2, "pause", limit_names, anybody, st.sampled_from(["-1", "60000", "600000"])),
    *operations(3, "resume", limit_names, anybody),
    *operations(2, "declare", actors, st.sampled_from(DECLARED)),
    *operations(3, "charge", pick, pick, limit_names, st.sampled_from([0, 1, 4, 30])),
    *operations(1, "charge_late", limit_names),
    *operations(4, "policy", tenants, st.sampled_from(POLICIES)),
    *operations(1, "policy_of_group", st.sampled_from("gh"), st.sampled_from([None, 0.5, 4.0])),
    *operations(2, "cancel", pick),
    *operations(1, "purge", tenants),
    *operations(3, "join", pick, serves),
    *operations(1, "assign", pick, serves),
    *operations(2, "leave", pick),
    *operations(2, "die", pick),
    *operations(4, "let_time_pass", st.sampled_from([1, 30, 70, 600, 4000, 20000])),
    *operations(2, "maintain"),
    *operations(1, "mend"),
    *operations(1, "damage", pick, pick),
    *operations(1, "corrupt", pick),
    *operations(1, "make_due", pick),
]  # fmt: skip

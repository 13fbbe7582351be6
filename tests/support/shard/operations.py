"""The operations that `tests.support.shard.state_machine` draws from: any transition, with hostile names."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from fairactor._model.wire import Emptying, Permit

from .model_lanes import ALL, Kind

HOUR = 3_600_000  # ms
TENANTS = ("t", "a:b:{c}", "'\"*[a-z]?\\ \n", "żółć ☃\0", ":queue:")
IDS = tuple(f"{odd}{n}" for n in range(6) for odd in ("", "{x}:", "*'\"\n", "ñ\0", "a\u2028😀"))
RUNTIMES = ("r", "host:1:ff/1 ", "{0}*☃\0'")
BODIES: tuple[bytes, ...] = (
    b"{}", b'["f",[],{}]', b"\0\xff\r\n", b'["",[],{}]', b'{"actor":"g",', b"", b'["g",[],{}]', b'["f"',
    b'["f\\u001fgpu",[],{}]', b'["g\\u001f\\u001f2",[],{}]', b'["h",[],{}]', b'["f",[],{}]',
    '["ñ\\"\\u001fgpu",[]]'.encode(),
)  # fmt: skip
KINDS = (
    ALL, Kind({"f": "1 b2"}), Kind({"g": "2 a1", 'ñ\\"': "1"}), Kind({"f": "1 a1", "h": "1"}, {"gpu"}),
    Kind({"f": "2 c", "g": "1"}, {"default", "gpu"}),
)  # fmt: skip
KEYS = ("k", ":1:t", "\0☃'\n")
GROUPS = ("g", "h")
SECONDS = (0.0, 0.001, 0.1, 2.5, 100.0)


def hourly(burst: int) -> dict[str, Any]:
    return {"rate": [f"1/h, {burst} at once", 3.6e9, burst]}


POLICIES: tuple[dict[str, Any], ...] = (
    {"concurrency": 1}, {"concurrency": 2, "weight": 0.3}, {"concurrency": 4, "weight": 0.001}, {"concurrency": None},
    {"weight": None}, {"weight": 7.5}, {"weight": 1e6, "concurrency": 1}, {}, {"concurrency": math.inf},
    hourly(1), hourly(2), hourly(4), {"rate": None}, {"rate": None}, {"rate": ["", 0.0, 1]}, {"backlog": 2},
    {"backlog": 5}, {"backlog": None}, {"paused": True}, {"paused": None}, {"paused": None}, {"group": "g"},
    {"group": "g"}, {"group": "h"}, {"group": "ñ\0☃", "weight": 2.0}, {"group": None},
    dict.fromkeys(("concurrency", "weight", "rate", "backlog", "paused", "group")),
)  # fmt: skip
DEFAULTS: tuple[dict[str, Any], ...] = (
    {"concurrency": 2}, {"weight": 3.0}, hourly(3), {"backlog": 4}, {"concurrency": None}, {"rate": None},
    {"backlog": None}, dict.fromkeys(("concurrency", "weight", "rate", "backlog")),
)  # fmt: skip

OWN = "(its own)"  # stands for the tenant of a task
RARE = 900  # numbers of 0…999 from here on choose a rare case
pick = st.integers(0, 999)
tenants, ids = st.sampled_from(TENANTS), st.sampled_from(IDS)
owners = st.sampled_from([OWN, OWN, "", "", *TENANTS])
anybody = st.sampled_from(["", "", "", *TENANTS])
dues = st.sampled_from(["", "", "", "", f"+{HOUR}", "60000", "60001", "4102444800000"])
keys = st.sampled_from(["", "", "", *KEYS])
items = st.tuples(
    ids,
    tenants,
    st.integers(1, 6),
    dues,
    st.sampled_from(["w", "", "", "+", "+"]),
    st.sampled_from(BODIES),
    st.tuples(keys, st.booleans()),
    st.booleans(),
)
seconds = st.sampled_from(SECONDS)
outcomes = st.tuples(pick, st.sampled_from(["F", "X", "C", "R", "R", "B", "U", "U", "V"]), st.booleans(), seconds)
rooms = st.sampled_from([None, None, (9, 0), (9, 1), (9, 2), (0, 2), (1, 1), (0, 0), (2, 0)])
permissions = st.tuples(
    st.sampled_from([*Permit, Permit.APART, Permit.ALONE, Permit.ALONE]),
    st.sampled_from([1, 2, 2, 3, 4]),
    st.sampled_from(Emptying),
)
some = st.lists(tenants, max_size=3, unique=True)
steals = st.one_of(some, st.just([""]), st.just([""]))
serves = st.one_of(st.none(), st.tuples(some, steals), st.tuples(some, steals))
reservations = st.sampled_from(["", "", "post", "other\0"])


def operations(share: int, name: str, *arguments: st.SearchStrategy[Any]) -> list[st.SearchStrategy[Any]]:
    return [st.tuples(st.just(name), st.tuples(*arguments)) for _ in range(share)]


OPERATIONS = [
    *operations(4, "send", st.lists(items, min_size=1, max_size=4), reservations, st.booleans()),
    *operations(3, "hand", tenants, st.integers(1, 6), st.booleans(), st.sampled_from(["as it is", "", "no homes"])),
    *operations(3, "change", st.lists(st.tuples(pick, st.integers(1, 6), dues, st.booleans()), min_size=1, max_size=3)),
    *operations(1, "hear", pick),
    *operations(5, "fill", tenants, st.integers(1, 6), st.integers(1, 6)),
    *operations(2, "turn", pick, st.integers(0, 5), st.lists(outcomes, max_size=4), rooms),
    *operations(6, "claim", pick, st.integers(1, 6), rooms),
    *operations(4, "finish", pick, st.sampled_from(["F", "X", "R", "B", "U", "V"]), st.booleans(), seconds),
    *operations(1, "turn_again", pick),
    *operations(1, "turn_ahead", pick, pick),
    *operations(1, "maintain", st.sampled_from([1, 500, 500]), st.integers(1, 4), st.booleans()),
    *operations(3, "join", st.sampled_from(RUNTIMES), serves, pick),
    *operations(1, "fill_rings", pick),
    *operations(1, "expire_lane", pick, st.booleans()),
    *operations(1, "sort_lane"),
    *operations(2, "assign", pick, serves),
    *operations(2, "leave", pick, st.sampled_from([False, False, True]), st.integers(1, 4), st.booleans()),
    *operations(3, "die", pick, st.integers(1, 4), st.booleans()),
    *operations(9, "claim_suspect", pick, st.integers(0, 3), permissions, st.lists(outcomes, max_size=2), rooms),
    *operations(1, "lapse", pick),
    *operations(1, "renew", pick),
    *operations(1, "set_back"),
    *operations(2, "cancel", pick, owners, st.booleans()),
    *operations(2, "cancel_many", st.lists(st.tuples(pick, owners), min_size=1, max_size=6), st.booleans()),
    *operations(1, "cancel_all", pick, st.booleans()),
    *operations(1, "purge", tenants, st.booleans()),
    *operations(1, "drain", pick, st.booleans()),
    *operations(6, "configure", pick, st.sampled_from(POLICIES)),
    *operations(1, "configure_defaults", st.sampled_from(DEFAULTS)),
    *operations(1, "configure_group", st.sampled_from(GROUPS), st.sampled_from([None, 0.5, 3.0])),
    *operations(5, "let_start", pick),
    *operations(
        1,
        "reserve",
        st.sampled_from(["post", "other\0"]),
        st.dictionaries(tenants, st.integers(0, 3), min_size=1, max_size=3),
    ),
    *operations(
        1, "watch", st.sampled_from(["sender", "other\0"]), st.lists(st.tuples(pick, owners, tenants), max_size=4)
    ),
    *operations(2, "progress", pick, pick),
    *operations(1, "ask", pick, tenants),
    *operations(2, "make_due", pick, st.sampled_from([1, 2, 3])),
    *operations(2, "expire", pick),
    *operations(2, "redrive", anybody, st.lists(st.tuples(pick, keys, st.booleans()), min_size=1, max_size=3)),
    *operations(1, "discard", anybody, st.lists(pick, min_size=1, max_size=3)),
    *operations(1, "read_letters"),
    *operations(1, "forget_key", pick),
    *operations(1, "mend"),
    *operations(1, "outlive", tenants),
]

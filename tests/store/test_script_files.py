"""The Lua files: their format, their size, and their includes."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from fairactor._store import loader as scripts

LUA = files("fairactor") / "lua"
FILES = sorted(str(path.relative_to(LUA)) for path in LUA.rglob("*.lua"))  # type: ignore[attr-defined]


CATCHING = {
    "lib/budget.lua",  # some servers lack os.clock
    "mend.lua",
    "lib/mend_steps.lua",
    "lib/mend_tasks.lua",
    "lib/mend_followers.lua",
    "lib/damage.lua",
    "lib/admit.lua",
    "lib/ending.lua",
    "watch.lua",
    "tasks.lua",
    "details.lua",
}
"""Those that go on where somebody has damaged a value, so that it harms no other task. One looks for a clock."""
WALKING = {
    "mend.lua": {"SCAN"},  # only after damage
    "review.lua": {"HSCAN"}, "fill.lua": {"HSCAN"}, "policies.lua": {"HSCAN"}, "purge.lua": {"HSCAN"},  # in batches
    "sort.lua": {"HSCAN"},  # likewise
    "health.lua": {"HSCAN"},  # one step
    "limit.lua": {"HSCAN"},  # in batches
    "stats.lua": {"ZSCAN"},  # runtimes, in batches
    "limits.lua": {"HSCAN"},  # likewise
    "residents.lua": {"HSCAN"},  # one step
    "reopen.lua": {"ZSCAN"},  # lines, in batches
    "tasks.lua": {"HSCAN"},  # in batches, for those who look
}  # fmt: skip
"""Scripts that scan more than their arguments name; none of them is part of a task's normal course."""


def read(name: str) -> str:
    return (LUA / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", scripts.NAMES)
def test_a_transition_opens_with_what_it_does_its_keys_arguments_and_reply(name: str) -> None:
    header = re.match(r"(?:--.*\n)+", read(f"{name}.lua"))
    assert header is not None
    assert re.fullmatch(
        r"-- [A-Z].*\.\n(?:-- .*\n)*"
        r"--\n-- KEYS  1 META of the shard\n"
        r"-- ARGV  1 .*\n(?:--       .*\n)*"
        r"-- Reply .*\n(?:--       .*\n)*"
        r"(?:--\n(?:-- .*\n)+)?",
        header[0],
    ), header[0]


def test_each_transition_may_be_repeated_and_says_so() -> None:
    for name in scripts.NAMES:
        assert re.search(r"Safe to repeat|Reads only|A repeat changes nothing|changes nothing", read(f"{name}.lua")), (
            name
        )


@pytest.mark.parametrize("name", FILES)
def test_a_lua_file_is_short_and_walks_over_no_keys(name: str) -> None:
    text = read(name)
    assert text.startswith("-- ")
    assert text.count("\n") <= 400
    commands = set(re.findall(r"(?:call|read_all|write_all)\('([A-Za-z]+)'", text))
    assert all(command.isupper() for command in commands)
    commands -= WALKING.get(name, set())
    assert not commands & {"KEYS", "SCAN", "HSCAN", "SSCAN", "ZSCAN", "RANDOMKEY", "FLUSHALL", "FLUSHDB", "EVAL"}
    assert not re.search(r"\b(loadstring|os\.(?!clock\b)|io\.)", text)
    assert "pcall" not in text or name in CATCHING
    assert "KEYS[2]" not in text


def test_what_walks_over_more_than_it_was_told_of_is_part_of_nothing_else() -> None:
    included = set(re.findall(r"^ *-- @include (\S+)$", "\n".join(map(read, FILES)), re.MULTILINE))
    assert not included & set(WALKING)


@pytest.mark.parametrize("name", scripts.NAMES)
def test_includes_are_put_in_once_each(name: str) -> None:
    text = scripts.load(name, flags=False).text
    assert "@include" not in text
    for included in FILES:
        if included.startswith("lib/"):
            assert text.count(read(included).splitlines()[0]) <= 1
    assert {f"{name}.lua" for name in scripts.NAMES} | {path for path in FILES if path.startswith("lib/")} == set(FILES)


def test_every_shared_part_is_included_by_some_transition() -> None:
    included = set(re.findall(r"^ *-- @include (\S+)$", "\n".join(map(read, FILES)), re.MULTILINE))
    for_plugins = {"lib/transition.lua"}
    assert included | for_plugins == {path for path in FILES if path.startswith("lib/")}

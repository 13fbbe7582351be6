"""Each Lua file declares where the names that it uses come from: parts that it includes or takes names from.

The loader concatenates parts, so a part can use every name that stands before it in the script. A line
``-- @include lib/ring.lua`` includes a part, once in each script. Where a file cannot include another one, because of
the order or because the other one includes it, a line ``-- @takes NAME, NAME from PART`` lists the names that it uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest
from fairactor_dependencies import Dependencies
from fairactor_scheduling import Scheduling
from fairactor_xcom import XCom

from fairactor._model.keys import lua_names
from fairactor._plugin_chain import PluginChain
from fairactor._store import loader
from fairactor._store.plugin_lua import HOOKS, NO_PLUGIN_LUA, PluginLua

PLUGINS: Final = PluginChain([Dependencies(), Scheduling(), XCom()]).lua
PACKAGES: Final = ("fairactor", *sorted({plugin for _, plugin, _ in PLUGINS.hooks}))
FOLDERS: Final = {package: Path(str(files(package))) / "lua" for package in PACKAGES}
FILES: Final = [
    (package, str(path.relative_to(folder)))
    for package, folder in FOLDERS.items()
    for path in sorted(folder.rglob("*.lua"))
]
"""The package of each file, and its path in the folder ``lua`` of that package."""

BUILTIN: Final = frozenset({
    "ARGV", "KEYS", "cjson", "cmsgpack", "error", "ipairs", "math", "next", "os", "pairs", "pcall", "redis",
    "select", "setmetatable", "string", "struct", "table", "tonumber", "tostring", "type", "unpack",
})  # fmt: skip
PUT_IN: Final = {"PLUGINS", "PLUGIN_TYPES", *lua_names()}
PUT_IN_FOR_PLUGINS: Final = {"OWN", "SELF", *lua_names()}
"""Constants that no Lua file defines: the loader substitutes their values."""

AT_HAND: Final = frozenset({"call", "shard", "later", "last"})
"""The names that docs/write-a-plugin.md promises to each hook.

A hook also has the names of the function around it and those that `plugin_lua.HOOKS` defines there.
"""

TAKES: Final = re.compile(r"^ *-- @takes (.+) from (\S+)$", re.MULTILINE)
TOKEN: Final = re.compile(
    r"^ *-- (@(?:include|hook) \S+)$"
    r"|--[^\n]*|('(?:\\.|[^'\\])*'|\d[\w.]*|[A-Za-z_]\w*|\.\.\.?|[=~<>]=|\S)",
    re.MULTILINE,
)
KEYWORDS: Final = frozenset({
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil", "not", "or",
    "repeat", "return", "then", "true", "until", "while",
})  # fmt: skip
OPENING: Final = frozenset({"do", "then", "repeat", "else"})
CLOSING: Final = frozenset({"end", "until", "else", "elseif"})


class Scan:
    """Finds the names that a piece of Lua defines, and those that it uses although nothing defines them.

    Args:
        text: the Lua.
        given: the names that are visible everywhere in it.
        defined_by: returns the names that an included part defines.
    """

    def __init__(
        self, text: str, given: Collection[str] = (), defined_by: Callable[[str], set[str]] = lambda _: set()
    ) -> None:
        self.undefined: set[str] = set()
        self.used: set[str] = set()
        self.own: set[str] = set()
        """The names that it defines itself, in any scope; without those of includes."""
        self.visible_at: dict[str, set[str]] = {}
        """The names visible at each include, or of the function around each hook."""
        self._defined_by = defined_by
        self._tokens = ["", *filter(None, map("".join, TOKEN.findall(text))), "", ""]
        self._at = 0
        self._constants: set[str] = set()  # the loader replaces them in the whole script, regardless of scope
        self._scopes: list[tuple[str, set[str]]] = [("given", set(given)), ("file", set())]
        self._loop: list[str] = []  # the variables of a loop whose body comes next
        self._brackets = [""]
        while self._at < len(self._tokens) - 2:
            self._at += 1
            self._step(self._tokens[self._at])
        assert len(self._scopes) == 2, "some block has no end"
        self.defined = self._scopes[-1][1] | self._constants

    def _step(self, token: str) -> None:
        if token.startswith("@"):
            self._obey(*token.split())
        elif token == "function":
            self._open_function()
        elif token == "local":
            self._define_locals()
        elif token == "for":
            self._loop = self._list_of_names()
        elif token in OPENING | CLOSING:
            self._open_and_close(token)
        elif token in {"(", "{", "["}:
            self._brackets.append(token)
        elif token in {")", "}", "]"}:
            self._brackets.pop()
        elif self._is_use(token):
            self._use(token)

    def _obey(self, directive: str, what: str) -> None:
        if directive == "@include":
            self.visible_at[what] = self._constants.union(*(names for _, names in self._scopes))
            self._scopes[-1][1].update(self._defined_by(what))
        else:
            self.visible_at[what] = next(names for kind, names in reversed(self._scopes) if kind == "function")

    def _open_function(self) -> None:
        self._at += 1
        if self._tokens[self._at] != "(":
            self._use(self._tokens[self._at])
        end = self._tokens.index(")", self._at)
        parameters = self._tokens[self._tokens.index("(", self._at) + 1 : end]
        self._scopes.append(("function", set(parameters) - {",", "..."}))
        self._at = end

    def _define_locals(self) -> None:
        if self._tokens[self._at + 1] == "function":
            self._define([self._tokens[self._at + 2]])
        else:
            self._define(self._list_of_names())

    def _list_of_names(self) -> list[str]:
        names: list[str] = []
        while not names or self._tokens[self._at + 1] == ",":
            self._at += 2 if names else 1
            names.append(self._tokens[self._at])
        return names

    def _define(self, names: Collection[str]) -> None:
        self._scopes[-1][1].update(names)
        self.own.update(names)
        self._constants.update(name for name in names if name.isupper())

    def _open_and_close(self, token: str) -> None:
        if token in CLOSING:
            self._scopes.pop()
        if token in OPENING:
            self._scopes.append(("block", set()))
        if token == "do":
            self._define(self._loop)
            self._loop = []

    def _is_use(self, token: str) -> bool:
        before, after = self._tokens[self._at - 1], self._tokens[self._at + 1]
        is_key = self._brackets[-1] == "{" and before in {"{", ","} and after == "="
        return token.isidentifier() and token not in KEYWORDS and before not in {".", ":"} and not is_key

    def _use(self, name: str) -> None:
        self.used.add(name)
        if name not in self._constants and not any(name in names for _, names in reversed(self._scopes)):
            self.undefined.add(name)


@cache
def read(package: str, path: str) -> str:
    return (FOLDERS[package] / path).read_text(encoding="utf-8")


def taken_by(package: str, path: str) -> list[tuple[str, str]]:
    """Returns each name that a file declares with ``@takes``, and the part that the name comes from."""
    return [(name, part) for names, part in TAKES.findall(read(package, path)) for name in names.split(", ")]


@cache
def scan(package: str, path: str) -> Scan:
    given = PUT_IN if package == "fairactor" else PUT_IN_FOR_PLUGINS | hook_names(package, path)
    taken = {name for name, _ in taken_by(package, path)}
    return Scan(read(package, path), BUILTIN | given | taken, lambda part: scan_part(package, part).defined)


def scan_part(package: str, part: str) -> Scan:
    """Scans a part that a file of a package includes or takes names from."""
    return scan(package, part.removeprefix("own/")) if part.startswith("own/") else scan("fairactor", part)


def hook_names(package: str, path: str) -> set[str]:
    """Returns the names that a hook's Lua, and the parts that it includes, can use without a declaration."""
    for place in HOOKS:
        hook = f"{place}.lua"
        if (package, hook) in FILES and (path == hook or f"-- @include own/{path}\n" in read(package, hook)):
            part = {"sent": "lib/accept.lua", "departs": "depart.lua"}.get(place, "lib/ending.lua")
            around = Scan(HOOKS[place].format(plugin="p", text="-- @include own/text.lua"))
            return scan("fairactor", part).visible_at[place] | around.visible_at["own/text.lua"] | AT_HAND
    return set()


def test_a_file_defines_or_includes_or_takes_each_name_that_it_uses() -> None:
    undefined = [
        f"{package}/lua/{path} uses {name}, which it neither defines nor includes nor takes"
        for package, path in FILES
        for name in sorted(scan(package, path).undefined)
    ]
    assert not undefined, "\n".join(undefined)


def test_what_a_file_takes_is_defined_there_and_is_used() -> None:
    for package, path in FILES:
        for name, part in taken_by(package, path):
            source = scan_part(package, part)
            visible = source.defined | source.visible_at.get(path if package == "fairactor" else f"own/{path}", set())
            assert name in visible & source.own, (
                f"{package}/lua/{path} takes {name} from {part}, which does not define it"
            )
            assert name in scan(package, path).used, f"{package}/lua/{path} takes {name} from {part} and never uses it"


@pytest.mark.parametrize("plugins", [NO_PLUGIN_LUA, PLUGINS], ids=["no plugins", "all plugins"])
def test_a_loaded_script_defines_each_name_before_it_uses_it(plugins: PluginLua) -> None:
    for script in (*loader.NAMES, *(name for name, _, _ in plugins.scripts)):
        shebang, _, text = loader.load(script, flags=True, plugins=plugins).text.partition("\n")
        assert shebang.startswith("#!lua")
        undefined = sorted(Scan(text, BUILTIN).undefined)
        assert not undefined, f"{script} uses {', '.join(undefined)} before it is defined"


@pytest.mark.parametrize(
    ("text", "undefined"),
    [
        ("local function f(a, ...) local b = a.c + d:e() return { f = b, g } end f()", {"d", "g"}),
        ("for i, j in pairs(i) do print(i, j) end return j", {"pairs", "i", "print", "j"}),
        ("if a then local b = 1 elseif b then local c else return c end return b", {"a", "b", "c"}),
        ("do local A, x = 1, 'y z' end return A .. x -- z", {"x"}),
        ("local f\nfunction f(a) return function(b) return a, b, c end end\nwhile a do local f end", {"a", "c"}),
        ("function g() end\n-- @include lib/other.lua\nreturn other", {"g"}),
    ],
)
def test_the_scan_finds_names_that_nothing_defines(text: str, undefined: set[str]) -> None:
    assert Scan(text, defined_by=lambda _: {"other"}).undefined == undefined

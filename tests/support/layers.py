"""Checks the layers: which fairactor modules may import which, and which names others may import.

All imports count, even those inside functions and those for type checkers only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

LAYERS: Final = (
    {"__main__"},
    {"cli"},
    {"commands"},
    {"_cli"},
    {"demo"},
    {"testing", "embedded", "serialization"},
    {"fairactor"},
    {"runtime"},
    {"_lifetime", "_configured"},
    {"config"},
    {"_operate", "_config"},
    {"_engine"},
    {"_worker", "_client", "_audit"},
    {"_plugin_chain"},
    {"views"},
    {"plugins"},
    {"_actors", "_store"},
    {"_values"},
    {"_model", "_server"},
    {"settings"},
    {"_util"},
    {"errors"},
)
"""The layers of fairactor, from the top. Each may import those below it. ``fairactor`` is the root ``__init__``."""

_BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Import(NamedTuple):
    """A name that a file imports from a module; the name is empty if it imports the module itself."""

    file: str
    line: int
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {'.'.join(filter(None, (self.module, self.name)))}"


class Tree:
    """The repository, or another folder that is laid out like it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules: dict[str, Path] = {}
        for folder in (root, root / "plugins"):
            for package in sorted(folder.glob("fairactor*")):
                for path in sorted(package.rglob("*.py")):
                    self._modules[_module_name(path.relative_to(folder))] = path

    def violations(self) -> list[str]:
        """Returns the violations, one line for each import or cycle."""
        return [*self._wrong_arrows(), *self._circles(), *self._private_imports()]

    def _wrong_arrows(self) -> Iterator[str]:
        places = {room: place for place, layer in enumerate(LAYERS) for room in layer}
        for module, path in self._of_package("fairactor"):
            here = _room(module)
            if here not in places:
                yield f"{self._name(path)} is in no layer: give {here} a place in LAYERS"
                continue
            for each in self._imports(path):
                target = self._target(each)
                there = _room(target) if target else here
                if there != here and there in places and places[there] <= places[here]:
                    yield f"{each}: {here} may not import {there}"

    def _circles(self) -> Iterator[str]:
        graph: dict[str, dict[str, Import]] = {}
        for module, path in self._modules.items():
            arrows = graph[module] = {}
            for each in self._imports(path):
                if target := self._target(each):
                    arrows.setdefault(target, each)
        while True:
            try:
                TopologicalSorter(graph).prepare()
            except CycleError as error:
                circle = list(reversed(error.args[1]))  # each imports the next, and the last is the first
                first = circle.index(min(circle))
                circle = [*circle[first:-1], *circle[: first + 1]]
                yield "a circle: " + "; ".join(str(graph[here].pop(there)) for here, there in pairwise(circle))
            else:
                return

    def _private_imports(self) -> Iterator[str]:
        """Yields imports of private names in plugins, examples and docs."""
        for path in sorted(self._root.glob("plugins/**/*.py")):
            own = path.relative_to(self._root / "plugins").parts[0]
            yield from self._private_in(self._imports(path), own)
        for path in sorted(self._root.glob("examples/**/*.py")):
            yield from self._private_in(self._imports(path), "")
        for path in sorted([*self._root.glob("docs/**/*.md"), *self._root.glob("*.md")]):
            text = path.read_text(encoding="utf-8")
            for block in _BLOCK.finditer(text):
                before = text.count("\n", 0, block.start(1))
                yield from self._private_in(_imports_in(block[1], self._name(path), "", before), "")

    def _private_in(self, imports: Sequence[Import], own: str) -> Iterator[str]:
        for each in imports:
            package = each.module.split(".")[0]
            if package == own or package not in self._modules:
                continue
            parts = [*each.module.split("."), each.name]
            if any(part.startswith("_") and not part.startswith("__") for part in parts):
                yield f"{each}, which is internal"
            elif each.name and not self._is_public(each):
                yield f"{each}, which is no public name of {each.module}"

    def _is_public(self, each: Import) -> bool:
        if f"{each.module}.{each.name}" in self._modules:
            return True
        return each.module in self._modules and each.name in _public_names(self._modules[each.module])

    def _of_package(self, package: str) -> Iterator[tuple[str, Path]]:
        return ((module, path) for module, path in self._modules.items() if module.split(".")[0] == package)

    def _imports(self, path: Path) -> Sequence[Import]:
        folder = self._root / "plugins" if path.is_relative_to(self._root / "plugins") else self._root
        package = ".".join(path.relative_to(folder).parent.parts)
        return _imports_in(path.read_text(encoding="utf-8"), self._name(path), package)

    def _target(self, each: Import) -> str | None:
        """Returns the imported module; None if it belongs to another project."""
        of_package = f"{each.module}.{each.name}"
        return of_package if of_package in self._modules else each.module if each.module in self._modules else None

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _parse(text: str) -> ast.Module:
    """Parses a module; once more if Python 3.11 fails, as it rarely does while the garbage collector runs."""
    try:
        return ast.parse(text)
    except SystemError:
        return ast.parse(text)


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


@cache
def _imports_in(text: str, file: str, package: str, lines_before: int = 0) -> Sequence[Import]:
    found = []
    for node in ast.walk(_parse(text)):
        if isinstance(node, ast.Import):
            found += [Import(file, lines_before + node.lineno, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found += [Import(file, lines_before + node.lineno, module, alias.name) for alias in node.names]
    return found


@cache
def _public_names(path: Path) -> frozenset[str]:
    """Returns a module's ``__all__``, or without one the names that it defines."""
    names = set()
    for node in _parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = {
                target.id
                for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
                if isinstance(target, ast.Name)
            }
            if "__all__" in targets and node.value is not None:
                return frozenset(ast.literal_eval(node.value))
            names |= targets
    return frozenset(names)

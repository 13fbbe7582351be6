"""Finds what to run: the actors or the runtime that ``MODULE`` or ``MODULE:NAME`` stands for."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import attrs

from fairactor._actors.actor import Actor, methods_of
from fairactor._util.checks import shown
from fairactor.errors import FairactorError
from fairactor.runtime import Runtime

_NAMED: Final = 10
"""The most names in an error."""


class NoApplication(Exception):
    """A target cannot be run. The message says why, and what to do.

    Args:
        message: the message.
        trace: the traceback of the user's code that has failed, if any.
    """

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


@attrs.frozen
class Application:
    """What to run: the actors, or a runtime that was not entered, whose own actors are run if there are no others."""

    actors: Sequence[Any]
    runtime: Runtime | None = None


def find_application(targets: Iterable[str]) -> Application:
    """Imports the modules and returns what they offer.

    Raises:
        NoApplication: a module cannot be imported, has nothing to run, or has several runtimes.
    """
    found = [_find(target) for target in targets]
    if len(found) == 1:
        return found[0]
    for target, each in zip(targets, found, strict=True):
        if each.runtime is not None:
            raise NoApplication(f"{target} is a Runtime, and has its own actors: give it alone, without other modules")
    return Application([actor for each in found for actor in each.actors])


def split(target: str) -> tuple[str, str]:
    """Splits a target into the module and the name in it, which may be empty."""
    module, _, name = target.partition(":")
    return module, name


def place(module: str) -> tuple[Path, str]:
    """Returns the folder from which a module is imported, and its dotted name.

    Raises:
        NoApplication: it is the path of a file that is not there.
    """
    if not (module.endswith(".py") or os.sep in module):
        return Path.cwd(), module
    path = Path(module).expanduser()
    if path.is_dir() and (path / "__init__.py").is_file():
        path /= "__init__.py"
    if not path.is_file():
        raise NoApplication(f"there is no file {shown(module)} in {Path.cwd()}{_near(path.name, _files(path.parent))}")
    path = path.resolve()
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _find(target: str) -> Application:
    given, name = split(target)
    folder, dotted = place(given)
    if not all(part.isidentifier() for part in dotted.split(".")):
        raise NoApplication(
            f"{shown(target)} names no module: give MODULE or MODULE:NAME, such as app, app.py or app:mail"
        )
    for path in (str(Path.cwd()), str(folder)):  # the folder of the file comes first
        if path in sys.path:
            sys.path.remove(path)
        sys.path.insert(0, path)
    module = _import(dotted)
    return _named(module, name) if name else _only(module)


def _import(dotted: str) -> ModuleType:
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{dotted}.".startswith(f"{error.name}.") and _is_ours(error):
            near = _near(error.name, [Path(file).stem for file in _files(Path.cwd())])
            raise NoApplication(
                f"there is no module {shown(error.name)}, neither in {Path.cwd()} nor installed{near}"
            ) from None
        raise _broken(dotted, error) from error
    except SystemExit as error:
        raise NoApplication(
            f"{dotted} ended the program while it was imported (SystemExit: {error}): put what starts it below "
            "if __name__ == '__main__'"
        ) from None
    except Exception as error:
        raise _broken(dotted, error) from error


def _broken(dotted: str, error: Exception) -> NoApplication:
    return NoApplication(f"{dotted} cannot be imported: {_said(error)}", user_traceback(error))


def _is_ours(error: BaseException) -> bool:
    """Whether no code of the user runs in a traceback: the module itself is missing."""
    return not _frames(error)


def user_traceback(error: BaseException) -> str:
    """Returns a traceback without the frames of fairactor and of Python's import system at its beginning."""
    frames = _frames(error)
    lines = traceback.format_exception_only(error)
    if frames:
        lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames), *lines]
    return "".join(lines).rstrip()


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    ours = (str(Path(__file__).parent), importlib.__file__ or "importlib", "<frozen importlib")
    return [frame for frame in frames if not frame.filename.startswith(ours)]


def _named(module: ModuleType, name: str) -> Application:
    """Returns what a name of the module stands for."""
    where = f"{module.__name__}:{name}"
    value: Any = module
    for part in name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise NoApplication(f"{module.__name__} has no {shown(name)}{_offers(module, name)}") from None
    if isinstance(value, Runtime):
        return Application((), _fresh(value, where))
    if isinstance(value, Actor) and value.owner is not None:
        raise NoApplication(
            f"{where} is a method: name its class, {module.__name__}:{name.rpartition('.')[0] or value.owner.__name__}"
        )
    if isinstance(value, Actor | ModuleType) or inspect.isclass(value):
        return Application([value])
    if isinstance(value, list | tuple | set | frozenset):
        return Application(list(value))
    if inspect.isroutine(value):
        return Application((), _fresh(_made(value, where), where))
    return Application([value])


def _made(make: Any, where: str) -> Runtime:
    """Calls a function that returns a runtime."""
    if inspect.iscoroutinefunction(make):
        raise NoApplication(
            f"{where} is an async function without @actor: decorate it, or give a plain function that returns a Runtime"
        )
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise NoApplication(
            f"{where} is a function without @actor that takes arguments ({error}): decorate it, or give a function "
            "without arguments that returns a Runtime"
        ) from None
    try:
        made = make()
    except Exception as error:
        raise NoApplication(f"{where}() failed: {_said(error)}", user_traceback(error)) from error
    if not isinstance(made, Runtime):
        raise NoApplication(f"{where}() returned {shown(made)}: a function without @actor has to return a Runtime")
    return made


def _fresh(runtime: Runtime, where: str) -> Runtime:
    if runtime._engine is not None:  # noqa: SLF001 - of the runtime to run
        raise NoApplication(f"the Runtime {where} was entered already: leave that to fairactor worker")
    return runtime


def _only(module: ModuleType) -> Application:
    """Returns the runtime in a module, or else its actors."""
    runtimes: dict[int, tuple[str, Runtime]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Runtime):
            runtimes.setdefault(id(value), (name, value))
    if len(runtimes) > 1:
        names = [f"{module.__name__}:{name}" for name, _ in runtimes.values()]
        raise NoApplication(f"{module.__name__} has {len(names)} Runtimes: name one of {_listed(names)}")
    actors = [module] if _actors_in(module) else []
    for name, runtime in runtimes.values():
        own = bool(runtime._registry)  # noqa: SLF001 - of the runtime to run
        if not own and not actors:
            raise NoApplication(
                f"{module.__name__}:{name} is a Runtime without actors: give it some with Runtime(actors=[…])"
            )
        return Application(() if own else actors, _fresh(runtime, f"{module.__name__}:{name}"))
    if not actors:
        raise NoApplication(
            f"{module.__name__} has neither actors nor a Runtime{_offers(module, '')}. Decorate its handlers with "
            f"@actor, or name what to run, as in {module.__name__}:NAME"
        )
    return Application(actors)


def _actors_in(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, Actor) or (inspect.isclass(value) and methods_of(value))
    ]


def _offers(module: ModuleType, name: str) -> str:
    """Returns which names a module has that are like a name, or could be run."""
    public = [each for each in vars(module) if not each.startswith("_")]
    if near := difflib.get_close_matches(name, public, n=1):
        return f"; did you mean {module.__name__}:{near[0]}?"
    runtimes = [each for each, value in vars(module).items() if isinstance(value, Runtime)]
    if can := [*runtimes, *_actors_in(module)]:
        return f"; it has {_listed(can)}"
    makers = [
        each
        for each, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not each.startswith("_")
    ]
    return f"; it has the functions {_listed(makers)}" if makers else ""


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _files(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.glob("*.py")]
    except OSError:
        return []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _said(error: BaseException) -> str:
    if isinstance(error, FairactorError):
        return str(error)
    return traceback.format_exception_only(error)[-1].strip()

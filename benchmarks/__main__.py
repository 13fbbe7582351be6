"""Runs a benchmark: ``python -m benchmarks NAME``. Without a name it lists them.

A table goes to stderr, with the sizes that the benchmark ran with, and one JSON line for each figure to stdout, or with
``--markdown`` a Markdown table.
``--plots`` draws pictures. ``all`` also draws them, and puts the figures and pictures into the page on performance.

To add a benchmark, write a module whose ``run(bench, *, option=default, …)`` returns figures and whose docstring
describes them, and enter it into `BENCHMARKS`. The keywords of ``run`` become options of the command line, and the
pictures it adds to ``bench.pictures`` are drawn.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from . import (
    caps,
    drain,
    fairness,
    imports,
    large,
    latency,
    limits,
    longest,
    neighbour,
    order,
    pages,
    peers,
    pipelines,
    recover,
    report,
    routing,
    scale,
    schedules,
    send,
    shards,
    shares,
    sizing,
)
from .bench import Bench, new_bench
from .figures import Figure, markdown, table
from .plots import Picture, check_can_draw

BENCHMARKS: Final[dict[str, ModuleType]] = {
    "drain": drain,
    "send": send,
    "latency": latency,
    "scale": scale,
    "longest": longest,
    "pages": pages,
    "schedules": schedules,
    "routing": routing,
    "order": order,
    "recover": recover,
    "fairness": fairness,
    "neighbour": neighbour,
    "shares": shares,
    "shards": shards,
    "caps": caps,
    "limits": limits,
    "pipelines": pipelines,
    "sizing": sizing,
    "large": large,
    "imports": imports,
    "peers": peers,
}
_REPORT: Final = Path("docs/performance.md")


def main() -> None:
    """Runs the command line."""
    given = _parser().parse_args()
    if given.benchmark is None:
        for name in [*BENCHMARKS, "all"]:
            print(f"{name:10}{_summary(name)}")
        return
    page: Path | None = getattr(given, "report", None)
    folder = page.parent if page else given.plots
    if folder:
        check_can_draw()
    results: list[tuple[str, list[Figure]]] = []
    pictures: list[Picture] = []
    lines: list[str] = []
    for name in BENCHMARKS if given.benchmark == "all" else [given.benchmark]:
        with asyncio.Runner(loop_factory=None if given.no_uvloop else _uvloop()) as runner:
            found, bench = runner.run(_run(name, given))
        results.append((name, found))
        pictures += bench.pictures
        sizes = _sizes(name, given)
        lines += [figure.as_json(name, bench.machine, sizes) for figure in found]
        conditions = f"Median of {given.rounds} rounds; {bench.machine}."
        notes = [f"sizes: {_listed(sizes)}", *bench.notes] if sizes else bench.notes
        shown = "\n".join([f"\n{name}: {_summary(name)}", f"{conditions}\n", table(found), "", *notes])
        print(shown.rstrip(), file=sys.stderr, flush=True)
    for picture in pictures if folder else ():
        print(f"\n{picture.caption}: {picture.save(folder)}", file=sys.stderr)
    if page:
        report.write(page, results, pictures, conditions)
    if given.json:
        given.json.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if given.markdown:
        print(markdown(results))
    elif not given.json:
        print("\n".join(lines))


async def _run(name: str, given: argparse.Namespace) -> tuple[list[Figure], Bench]:
    async with new_bench(given.url, given.rounds) as bench:
        return await BENCHMARKS[name].run(bench, **_sizes(name, given)), bench


def _sizes(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Returns the options with which a benchmark runs; ``all`` uses the defaults."""
    return {option: getattr(given, option, default) for option, default in _options(name).items()}


def _listed(sizes: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={size:,}" if isinstance(size, int) else f"{name}={size!r}" for name, size in sizes.items()
    )


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--rounds", type=int, default=5, help="how many times to measure everything (default: 5)")
    common.add_argument(
        "--url", help="an empty server to use; it is emptied afterwards (default: a fresh embedded one)"
    )
    common.add_argument(
        "--no-uvloop", action="store_true", help="use asyncio's own event loop even if uvloop is installed"
    )
    common.add_argument("--json", type=Path, metavar="FILE", help="write the JSON lines to FILE instead of stdout")
    common.add_argument("--markdown", action="store_true", help="print a Markdown table to stdout")
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measures fairactor.")
    chosen = parser.add_subparsers(dest="benchmark", metavar="NAME")
    for name, module in BENCHMARKS.items():
        one = chosen.add_parser(
            name,
            parents=[common],
            help=_summary(name),
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.add_argument(
            "--plots", type=Path, metavar="FOLDER", help="save the pictures of the benchmark, if it has any, in FOLDER"
        )
        for option, default in _options(name).items():
            one.add_argument(
                f"--{option.replace('_', '-')}", type=type(default), default=default, help=f"(default: {default})"
            )
    everything = chosen.add_parser("all", parents=[common], help=_summary("all"), description=_summary("all"))
    everything.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        default=_REPORT,
        help="the page to put the results into (default: %(default)s)",
    )
    return parser


def _summary(name: str) -> str:
    if name == "all":
        return "Runs all benchmarks with their default sizes, and puts figures and pictures into docs/performance.md."
    return str(BENCHMARKS[name].__doc__).partition("\n\n")[0].replace("\n", " ")


def _options(name: str) -> dict[str, Any]:
    """Returns the keywords of a benchmark, with their defaults."""
    parameters = inspect.signature(BENCHMARKS[name].run).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()

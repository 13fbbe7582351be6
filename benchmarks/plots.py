"""The pictures of the report, as SVG: plain, on white, in colors that color-blind readers can tell apart.

The same values give the same file, byte for byte. Only `Picture.save` needs matplotlib.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

_OURS: Final = "#0072b2"
_GREY: Final = "#8a8a8a"
_STYLE: Final[dict[Any, Any]] = {
    "axes.edgecolor": _GREY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.size": 11,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "svg.hashsalt": "fairactor",
}


@attrs.frozen
class Picture:
    """A picture that can be saved."""

    name: str
    """The name of the file, without ``.svg``."""
    caption: str
    _draw: Callable[[Any], None]
    _height: float = 3.4

    def save(self, folder: Path) -> Path:
        """Draws the picture, saves it in a folder, and returns its path."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        path = folder / f"{self.name}.svg"
        with mpl.rc_context(_STYLE):
            figure = Figure(figsize=(8, self._height), layout="constrained")
            self._draw(figure.add_subplot())
            figure.savefig(path, metadata={"Date": None, "Creator": None})
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("".join(f"{line.rstrip()}\n" for line in lines), encoding="utf-8")
        return path


def check_can_draw() -> None:
    """Checks that pictures can be saved.

    Raises:
        SystemExit: matplotlib is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("pictures need matplotlib: pip install 'fairactor[bench]', or '.[bench]' in a checkout")


def fairness(pickups: Sequence[float], ideal: float) -> Picture:
    """Draws when the first task of each tenant started, next to the ideal.

    Args:
        pickups: for each tenant, the seconds from the start until its first task started.
        ideal: when the first task of the last tenant would start with perfectly even service.
    """

    def draw(axes: Any) -> None:
        places = range(1, len(pickups) + 1)
        even = [ideal * place / len(pickups) for place in places]
        axes.plot(places, even, color=_GREY, linestyle=(0, (2, 1.5)), linewidth=5, label="ideal: one after the other")
        axes.plot(places, sorted(pickups), color=_OURS, label="fairactor")
        axes.set(xlabel="tenants, in the order of their first task", ylabel="first task started, s")
        axes.set(xlim=(0, len(pickups)), ylim=(0, None))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend(loc="upper left")

    return Picture("fairness", f"When the first task of each of {len(pickups):,} tenants started", draw)


def neighbour(alone: Sequence[float], beside: Sequence[float], backlog: int) -> Picture:
    """Draws how long the tasks of a tenant waited, alone and beside a neighbour with a backlog.

    Args:
        alone: the wait of each task in ms, without the neighbour.
        beside: the wait of each task in ms, with the neighbour.
        backlog: how many tasks the neighbour had.
    """

    def draw(axes: Any) -> None:
        for waits, color, style, label in (
            (alone, _GREY, "--", "alone"),
            (beside, _OURS, "-", f"beside a tenant with {backlog:,} tasks"),
        ):
            shares = [100 * (place + 1) / len(waits) for place in range(len(waits))]
            axes.step(sorted(waits), shares, where="post", color=color, linestyle=style, label=label)
        axes.set(xlabel="wait from the send to the start, ms", ylabel="tasks that have started, %")
        axes.set(xlim=(0, None), ylim=(0, 101))
        axes.legend(loc="lower right")

    return Picture(
        "neighbour",
        f"How long a tenant's tasks wait, alone and beside a tenant with a backlog of {backlog:,} tasks",
        draw,
    )


def peers(rates: Mapping[str, float], *, ours: str = "fairactor") -> Picture:
    """Draws how fast each queue drains.

    Args:
        rates: tasks per second, by name. The bars are in their order, from the top.
        ours: the name whose bar is highlighted.
    """

    def draw(axes: Any) -> None:
        colors = [_OURS if name == ours else _GREY for name in rates]
        bars = axes.barh(list(rates), list(rates.values()), color=colors, height=0.65)
        axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates.values()], padding=4)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel="tasks a second", xlim=(0, 1.12 * max(rates.values())))
        axes.xaxis.set_major_formatter("{x:,.0f}")

    return Picture("peers", "Tasks drained per second, by queue", draw, height=1.1 + 0.36 * len(rates))

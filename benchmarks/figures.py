"""What benchmarks find: figures, with a value for each round and the goal they are held to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Final

import attrs


@attrs.frozen
class Goal:
    """A bound on the median of the ratios, or of our own values if there is no baseline."""

    relation: str  # '>=' or '<='
    bound: float

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g}"

    def met_by(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value >= self.bound if self.relation == ">=" else value <= self.bound


def at_least(bound: float) -> Goal:
    """Makes a goal for a value that should be large."""
    return Goal(">=", bound)


def at_most(bound: float) -> Goal:
    """Makes a goal for a value that should be small."""
    return Goal("<=", bound)


@attrs.frozen
class Figure:
    """One measured quantity, with a value for each round. Its ratio is ours / baseline, round by round."""

    name: str
    unit: str
    ours: Sequence[float]
    baseline: Sequence[float] = ()
    against: str = ""
    """The name of the baseline."""
    goal: Goal | None = None

    @property
    def ratios(self) -> list[float]:
        """Ours / baseline for each round. Empty without a baseline."""
        pairs = zip(self.ours, self.baseline, strict=True) if self.baseline else ()
        return [ours / baseline for ours, baseline in pairs]

    @property
    def judged(self) -> Sequence[float]:
        """The values that the goal applies to."""
        return self.ratios or self.ours

    @property
    def met(self) -> bool | None:
        """Whether the goal is met. None without a goal."""
        return self.goal.met_by(median(self.judged)) if self.goal else None

    def as_json(self, benchmark: str, machine: str, sizes: Mapping[str, Any]) -> str:
        """Returns the figure as one JSON line, with the sizes that the benchmark ran with."""
        fields: dict[str, Any] = {
            "benchmark": benchmark,
            "figure": self.name,
            "unit": self.unit,
            "ours": [_rounded(value) for value in self.ours],
            "baseline": [_rounded(value) for value in self.baseline],
            "against": self.against,
            "ratio": [_rounded(value) for value in self.ratios],
            "median": _rounded(median(self.judged)),
            "median_of": "ratio" if self.baseline else "ours",
            "goal": str(self.goal) if self.goal else None,
            "met": self.met,
            "sizes": dict(sizes),
            "machine": machine,
        }
        return json.dumps(fields, ensure_ascii=False)


_HEADINGS: Final = ("figure", "ours", "baseline", "ratio (min to max)", "goal", "met")


def table(figures: Iterable[Figure]) -> str:
    """Returns the figures as a plain-text table."""
    rows = [_HEADINGS, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def markdown(results: Iterable[tuple[str, Iterable[Figure]]]) -> str:
    """Returns the figures of several benchmarks as one Markdown table."""
    lines = [_markdown_row(("benchmark", *_HEADINGS)), _markdown_row(["---"] * (len(_HEADINGS) + 1))]
    lines += [_markdown_row((f"`{name}`", *_row(figure))) for name, figures in results for figure in figures]
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    ratios = figure.ratios
    return (
        f"{figure.name}, {figure.unit}",
        _middle(figure.ours),
        f"{_middle(figure.baseline)} ({figure.against})" if figure.baseline else "",
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "",
        str(figure.goal or ""),
        {None: "", True: "yes", False: "NO"}[figure.met],
    )


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _middle(values: Sequence[float]) -> str:
    value = median(values)
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.3g}"


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")

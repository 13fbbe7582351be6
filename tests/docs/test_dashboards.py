"""Loads the dashboard, the alert rules and the example of KEDA, and checks that their metrics exist in a real run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from fairactor_scheduling import Schedules
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import _internal as api
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fairactor import Runtime, TaskFailed, actor
from fairactor._operate import gauges
from fairactor._util.instruments import INSTRUMENTS
from tests.support.polling import PATIENCE, until

DOCS: Final = Path(__file__).parents[2] / "docs"
FUNCTIONS: Final = {"absent", "histogram_quantile", "increase", "label_values", "max", "rate", "sum", "topk"}
MATCHER: Final = r'[a-z_]+(?:=|!=|=~|!~)"[^"]*"'
WORDS: Final = {"and", "by", "or", "unless"}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "grafana-dashboard.json").read_text())
    return found


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DOCS / "prometheus-rules.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def keda() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCS / "keda.yaml").read_text())
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Yields all PromQL, with where it stands."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"].replace(", fairactor_namespace", "")
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for trigger in keda()["spec"]["triggers"]:
        yield f"keda {trigger['name']}", trigger["metadata"]["query"]


EXPRESSIONS: Final = [pytest.param(found, id=where) for where, found in expressions()]


def parse(expression: str) -> tuple[set[str], set[str]]:
    """Parses PromQL as far as the files use it; returns the names of metrics, and of labels."""
    brackets: list[str] = []
    for character in re.sub(r'"[^"]*"', '""', expression):
        if character in "([{":
            brackets.append({"(": ")", "[": "]", "{": "}"}[character])
        elif character in ")]}":
            assert brackets, f"{expression}: {character} closes nothing"
            assert brackets.pop() == character, f"{expression}: {character} closes another bracket"
    assert not brackets, f"{expression}: {brackets} are missing"
    labels: set[str] = set()
    for selector in re.findall(r"\{([^}]*)\}", expression):
        assert re.fullmatch(f"{MATCHER}(, {MATCHER})*", selector), f"{expression}: {selector}"
        labels |= {found[0] for found in re.finditer(r"[a-z_]+(?=[=!])", selector)}
    bare = re.sub(r"\{[^}]*\}", "", expression)
    for _, listed in re.findall(r"\b(by|on)\s*\(([^)]*)\)", bare):
        labels |= {label.strip() for label in listed.split(",")}
    bare = re.sub(r"\b(by|on)\s*\([^)]*\)", "", bare)
    durations = re.findall(r"\[([^\]]*)\]", bare)
    assert all(re.fullmatch(r"\d+[smhd]|\$__rate_interval", duration) for duration in durations), expression
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    called = set(re.findall(r"([a-z_]+)\s*\(", bare)) - WORDS
    assert called <= FUNCTIONS, f"{expression}: {called - FUNCTIONS}"
    return set(re.findall(r"\b[a-z_]+\b", bare)) - called - WORDS, labels - {"le"}


@actor
async def work(how: str) -> None:
    if how == "fail":
        raise ValueError("as told")


@pytest.fixture
async def exported(url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Returns the metrics that Prometheus gets of a real run: their names, and the labels of each."""
    registry = CollectorRegistry()
    provider = MeterProvider(metric_readers=[PrometheusMetricReader(registry=registry)], shutdown_on_exit=False)
    monkeypatch.setattr(api, "_METER_PROVIDER", provider)
    monkeypatch.setattr(gauges, "EVERY", 0.02)

    def collect() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
        return found

    names = {"fairactor_schedule_lateness_seconds_bucket", "fairactor_tenant_backlog", "fairactor_queue_backlog"}
    async with Runtime(url, actors=[work], metrics_tenants=3, lease=3.0) as runtime:
        await runtime.ask("acme", work("well"), timeout=PATIENCE)
        with pytest.raises(TaskFailed):
            await runtime.ask("acme", work("fail"), timeout=PATIENCE, max_retries=1)
        await Schedules(runtime).add(0.1, "acme", work("well"), id="often")
        await runtime.send("acme", work("well"), delay=0.5)
        await until(lambda: names <= collect().keys())
        found = collect()
    provider.shutdown()
    return found


@pytest.mark.anyio
async def test_all_that_the_files_name_exists(exported: dict[str, set[str]]) -> None:
    missing = []
    for where, expression in expressions():
        metrics, labels = parse(expression)
        assert metrics, where
        missing += [f"{where}: {metric}" for metric in metrics if metric not in exported]
        known = set().union(*(exported.get(metric, set()) for metric in metrics))
        missing += [f"{where}: label {label}" for label in labels - known]
    assert not missing


@pytest.mark.anyio
async def test_the_page_lists_the_metrics_as_prometheus_has_them(exported: dict[str, set[str]]) -> None:
    text = (DOCS / "metrics.md").read_text()
    named = set(re.findall(r"`((?:fairactor|messaging)_[a-z_]+)`", text))
    names = exported.keys() | {name.removesuffix("_bucket") for name in exported}
    labels = set().union(*exported.values())
    assert named
    assert named <= names | labels, named - names - labels


def test_the_page_lists_each_instrument() -> None:
    text = (DOCS / "metrics.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \| (\w+) \| `([^`]+)` \|", text, re.MULTILINE)
    listed = {name: (kind, unit) for name, kind, unit in rows}
    known = {each.name: (each.kind, each.unit) for each in INSTRUMENTS}
    assert listed == known | {"fairactor.schedule.lateness": ("histogram", "s")}  # that one is of a plugin


def test_rules_say_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert re.fullmatch(r"\d+m", rule.get("for", "1m"))
        _, labels = parse(rule["expr"])
        used = set(re.findall(r"\$labels\.([a-z_]+)", str(rule["annotations"])))
        assert used <= labels


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_keda_scales_by_age_and_depth() -> None:
    spec = keda()["spec"]
    assert keda()["kind"] == "ScaledObject"
    assert {trigger["type"] for trigger in spec["triggers"]} == {"prometheus"}
    assert {trigger["name"] for trigger in spec["triggers"]} == {"depth", "oldest-age"}
    for trigger in spec["triggers"]:
        assert all(isinstance(value, str) for value in trigger["metadata"].values())  # as Kubernetes asks for
        float(trigger["metadata"]["threshold"])


@pytest.mark.parametrize("expression", ["sum(x", "sum(x))", "x{a=b}", "x[5]", "avg(x)", "sum(x}"])
def test_the_parser_knows_right_from_wrong(expression: str) -> None:
    with pytest.raises(AssertionError):
        parse(expression)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_can_be_parsed(expression: str) -> None:
    assert parse(expression)[0]

"""The Grafana dashboard: what it asks for is what the Prometheus example exports, and all of that is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="needs the extra test")

import prometheus_client
from example_files import EXAMPLES, example

from circuit_breaker import Bulkhead, CallFinished, CircuitBreaker, Outcome, RetryGaveUp, RetryPolicy, RetryScheduled

DASHBOARD: dict[str, Any] = json.loads((EXAMPLES / "grafana-dashboard.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
VARIABLES: dict[str, dict[str, Any]] = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}

FROM_PROMETHEUS = {"instance"}  # the labels that Prometheus itself adds to each sample
FUNCTIONS = {"sum", "max", "by", "rate", "increase", "clamp_max", "histogram_quantile"}
SELECTOR = re.compile(r"([a-zA-Z_]\w*)\{([^{}]*)\}")
MATCHER = re.compile(r'\s*(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"\s*')
GROUPING = re.compile(r"\bby\s*\(([^()]*)\)\s*\(")


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The labels of each metric that the example exports."""
    recipe, registry = example("with_prometheus"), prometheus_client.CollectorRegistry()
    recipe.Snapshots(
        example("resilience_metrics").Metrics(bulkheads=[Bulkhead("reports")], policies={"payments": RetryPolicy()}),
        registry,
    )
    listener = recipe.Listener(registry)
    listener(CallFinished("payments", Outcome.SUCCESS, 1.0, None))
    listener(RetryScheduled(0, 0.1, None, 0.1))
    listener(RetryGaveUp(1, 0.1, "no retries left", None))
    breaker = CircuitBreaker("payments")
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert breaker.name in {sample.labels["circuit"] for sample in samples if "circuit" in sample.labels}
    return {sample.name: set(sample.labels) for sample in samples}


def argument(expression: str, start: int) -> str:
    """Return what stands between the parenthesis that was opened before `start` and the one that closes it."""
    depth = 1
    for position in range(start, len(expression)):
        depth += {"(": 1, ")": -1}.get(expression[position], 0)
        if not depth:
            return expression[start:position]
    raise AssertionError(f"a parenthesis is not closed in {expression}")


def uses(expression: str) -> Iterator[tuple[str, str | None]]:
    """Yield each metric of a PromQL expression with each label that is asked for; None: with no label."""
    for metric, matchers in SELECTOR.findall(expression):
        yield metric, None
        rest = MATCHER.sub("", matchers)
        assert not rest.replace(",", ""), f"what is {rest!r} in {expression}?"
        for label in MATCHER.findall(matchers):
            yield metric, label
    for grouping in GROUPING.finditer(expression):
        for metric, _ in SELECTOR.findall(argument(expression, grouping.end())):
            for label in grouping[1].split(","):
                yield metric, label.strip()


@pytest.mark.parametrize(("title", "target"), TARGETS)
def test_a_panel_asks_only_for_metrics_and_labels_that_are_exported(
    title: str, target: dict[str, Any], exported: dict[str, set[str]]
) -> None:
    asked = list(uses(target["expr"]))
    assert asked
    for metric, label in asked:
        assert metric in exported
        assert label is None or label in exported[metric] | FROM_PROMETHEUS


@pytest.mark.parametrize(("title", "target"), TARGETS)
def test_an_expression_has_nothing_in_it_that_this_test_does_not_read(title: str, target: dict[str, Any]) -> None:
    rest = GROUPING.sub("(", SELECTOR.sub("", target["expr"])).replace("[$__rate_interval]", "")
    assert set(re.findall(r"[a-zA-Z_$]\w*", rest)) <= FUNCTIONS
    assert set(re.findall(r"\$(\w+)", target["expr"])) <= {*VARIABLES, "__rate_interval"}


@pytest.mark.parametrize(("title", "target"), TARGETS)
def test_a_legend_names_labels_that_the_expression_keeps(title: str, target: dict[str, Any]) -> None:
    kept = {label.strip() for labels in GROUPING.findall(target["expr"]) for label in labels.split(",")}
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept


@pytest.mark.parametrize("name", [name for name in VARIABLES if name != "datasource"])
def test_a_variable_offers_the_values_of_a_label_that_is_exported(name: str, exported: dict[str, set[str]]) -> None:
    asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", VARIABLES[name]["definition"])
    assert asked is not None
    metric, label = asked.groups()
    assert label in exported[metric] | FROM_PROMETHEUS


def test_everything_that_is_exported_is_shown(exported: dict[str, set[str]]) -> None:
    shown = {metric for _, target in TARGETS for metric, _ in uses(target["expr"])}
    derived = re.compile(r"_(created|sum|count)$")  # what belongs to a counter or to a histogram
    assert {metric for metric in exported if not derived.search(metric)} == shown


def test_the_data_source_is_chosen_when_the_dashboard_is_imported() -> None:
    assert VARIABLES["datasource"]["type"] == "datasource"
    owners = [*PANELS, *(target for _, target in TARGETS), *(v for v in VARIABLES.values() if v["type"] == "query")]
    assert {owner["datasource"]["uid"] for owner in owners} == {"${datasource}"}


def test_the_panels_stand_side_by_side() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    areas = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in panels)
    ]
    assert not any(one & other for one, other in combinations(areas, 2))
    assert max(x for area in areas for x, _ in area) < 24

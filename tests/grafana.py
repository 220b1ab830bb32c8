"""The expressions of the Grafana dashboard, beside what is exported."""

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "fmnist-optuna.json"
SCRAPED = {"job", "instance"}  # labels that Prometheus adds


def check_expressions(scraped: str) -> None:
    """Compare each name and each label in each expression with what was scraped."""
    families = text_string_to_metric_families(scraped)
    found = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    for expression in read_expressions():
        names = set(re.findall(r"\b(?:fmnist_optuna|process)_\w+", expression))
        assert names
        assert names <= set(found), expression
        assert labels_in(expression) <= SCRAPED.union(*(found[name] for name in names)), expression
        assert [expression.count(mark) for mark in "([{"] == [expression.count(mark) for mark in ")]}"], expression


def read_expressions() -> list[str]:
    """Those of the panels, and those that variables are read by."""
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    assert panels
    assert variables
    return [*panels, *variables]


def labels_in(expression: str) -> set[str]:
    """The labels that an expression selects, groups or joins by."""
    selected = re.findall(r"[{,]\s*(\w+)\s*=~?\"", expression)
    groups = re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", expression)
    variables = re.findall(r"label_values\(\w+, (\w+)\)", expression)
    return {*selected, *variables, *(name for group in groups for name in re.findall(r"\w+", group))}

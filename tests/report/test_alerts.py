"""The shipped alerts and dashboard: they ask for metrics that there are, and promtool finds nothing wrong."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from smarthost.report.counters import Counters
from smarthost.report.gauges import Gauges
from smarthost.report.metrics import RelayCollector, make_registry

CONF = Path(__file__).parents[2] / "conf"
RULES = CONF / "prometheus" / "rules.yml"
_NAME = re.compile(r"\b(?:smarthost|mail)_[a-z0-9_]+\b")


def known() -> set[str]:
    """Give every name that a scrape may have: families, and what the library makes of them."""
    collector = RelayCollector(Counters(), Gauges, lambda: 0.0, lambda: 0, ["door"], ["relayhost"])
    families = re.findall(r"^# TYPE (\S+) (\S+)", generate_latest(make_registry(collector)).decode(), re.MULTILINE)
    endings = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + ending for name, kind in families for ending in endings.get(kind, ("",))}


def test_alerts_ask_for_metrics_that_there_are() -> None:
    """Each name in an expression is a metric of ours."""
    names = {name for line in RULES.read_text().splitlines() for name in _NAME.findall(line)}
    assert names and names <= known(), names - known()
    assert "alert: HighEmailErrorRate" in RULES.read_text() and "alert: EmailQueueBacklog" in RULES.read_text()


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    """Each panel has a question, each question a metric of ours; ids and places are given once."""
    panels = json.loads((CONF / "grafana" / "smarthost.json").read_text())["panels"]
    for panel in panels:
        for target in panel["targets"]:
            names = set(_NAME.findall(target["expr"]))
            assert names and names <= known(), (panel["title"], names - known())
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) is not installed")
def test_promtool_takes_the_alerts() -> None:
    """The rules are valid, and fire and keep still as their tests say."""
    for arguments in (("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")):
        ran = subprocess.run(
            ["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr

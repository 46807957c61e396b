"""Panels of Grafana's dashboards, and the dashboards that they make up, as Grafana's JSON model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

DATA_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS: Final = 24
SCHEMA_VERSION: Final = 39
"""That of Grafana 11. Newer versions migrate it when they load it."""


@dataclass(frozen=True)
class Query:
    """A query in PromQL, and the legend of its series with the labels in double braces."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """A panel with a graph, one number or a text."""

    title: str
    queries: Sequence[Query] = ()
    unit: str = "short"
    """The id of a unit of Grafana."""
    kind: str = "timeseries"
    """`timeseries`, `stat` (the latest value) or `text`."""
    description: str = ""
    text: str = ""
    """The Markdown of a text."""
    width: int = 8
    height: int = 8
    mappings: Sequence[dict[str, Any]] = ()

    def model(self, number: int, *, x: int, y: int) -> dict[str, Any]:
        """Return Grafana's model of the panel at a position."""
        model: dict[str, Any] = {
            "id": number,
            "title": self.title,
            "description": self.description,
            "type": self.kind,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
        }
        if self.kind == "text":
            return model | {"options": {"mode": "markdown", "content": self.text}}
        targets = [
            {
                "datasource": DATA_SOURCE,
                "refId": chr(ord("A") + index),
                "expr": query.expression,
                "legendFormat": query.legend or "__auto",
                "instant": self.kind == "stat",
                "range": self.kind != "stat",
                "exemplar": self.kind == "timeseries" and "_bucket" in query.expression,
            }
            for index, query in enumerate(self.queries)
        ]
        defaults: dict[str, Any] = {"unit": self.unit, "min": 0, "mappings": list(self.mappings)}
        return model | {
            "datasource": DATA_SOURCE,
            "targets": targets,
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": _OPTIONS[self.kind],
        }


_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "value_and_name",
    },
}


@dataclass(frozen=True)
class Row:
    """A row of a dashboard: a title, and panels that are laid out from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A variable of a dashboard, whose values are those of a label."""

    name: str
    query: str
    label: str


@dataclass(frozen=True)
class Dashboard:
    """A dashboard."""

    name: str
    """Also the name of its file, and a part of its address in Grafana."""
    title: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = field(default_factory=tuple)

    def queries(self) -> list[tuple[str, Query]]:
        """Return the queries of all panels with the panels' titles."""
        return [(panel.title, query) for row in self.rows for panel in row.panels for query in panel.queries]

    def json(self) -> str:
        """Return Grafana's model of the dashboard."""
        variables = [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
            *({
                "name": variable.name, "label": variable.label, "type": "query", "datasource": DATA_SOURCE,
                "query": {"query": variable.query, "refId": variable.name}, "definition": variable.query,
                "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
                "current": {"text": ["All"], "value": ["$__all"]},
            } for variable in self.variables),
        ]  # fmt: skip
        model = {
            "uid": f"vilix-{self.name}",
            "title": self.title,
            "tags": ["vilix"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "links": [
                {"title": "Vilix", "type": "dashboards", "tags": ["vilix"], "keepTime": True, "includeVars": True}
            ],
            "templating": {"list": variables},
            "panels": self._panels(),
        }
        return json.dumps(model, indent=1, ensure_ascii=False) + "\n"

    def _panels(self) -> list[dict[str, Any]]:
        models: list[dict[str, Any]] = []
        y = 0
        for row in self.rows:
            position = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
            models.append({"id": len(models) + 1, "type": "row", "title": row.title, "gridPos": position, "panels": []})
            x, y, height = 0, y + 1, 0
            for panel in row.panels:
                if x + panel.width > COLUMNS:
                    x, y, height = 0, y + height, 0
                models.append(panel.model(len(models) + 1, x=x, y=y))
                x, height = x + panel.width, max(height, panel.height)
            y += height
        return models

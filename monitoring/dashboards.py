"""The dashboards that the chart ships."""

from __future__ import annotations

from monitoring.gateway_dashboard import gateway
from monitoring.model_dashboard import model
from monitoring.overview_dashboard import overview
from monitoring.panels import Dashboard
from monitoring.tenants_dashboard import tenants


def dashboards() -> list[Dashboard]:
    """Return all dashboards."""
    return [overview(), model(), tenants(), gateway()]

"""Parts of queries that several dashboards have."""

from __future__ import annotations

from typing import Any, Final

from monitoring.panels import Panel, Query, Variable

NAMESPACE: Final = 'namespace=~"$namespace"'
MODEL: Final = f'{NAMESPACE}, model=~"$model"'
RATE: Final = "[$__rate_interval]"
NAMESPACES: Final = Variable("namespace", 'label_values(vilix_build_info{component="gateway"}, namespace)', "Namespace")
SHARE: Final = "percentunit"
YES: Final[list[dict[str, Any]]] = [
    {
        "type": "value",
        "options": {"0": {"text": "no", "color": "red"}, "1": {"text": "yes", "color": "green"}},
    }
]
"""Shows a gauge that is 1 or 0 as an answer."""


def rate(metric: str, by: str = "", selector: str = NAMESPACE) -> str:
    """Return the rate of a counter, by labels."""
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({metric}{{{selector}}}{RATE}))"


def quantiles(histogram: str, selector: str = MODEL) -> list[Query]:
    """Return the queries of a histogram's median, 95th and 99th percentile."""
    buckets = rate(f"{histogram}_bucket", "le", selector)
    return [
        Query(f"histogram_quantile({quantile}, {buckets})", f"p{round(quantile * 100)}")
        for quantile in (0.5, 0.95, 0.99)
    ]


def latency(title: str, histogram: str, description: str, selector: str = MODEL) -> Panel:
    """Return a panel with the quantiles of a duration."""
    return Panel(title, quantiles(histogram, selector), "s", description=description)

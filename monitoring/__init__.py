"""Generated files for operators: the reference of the metrics, and the rules and dashboards of the chart."""

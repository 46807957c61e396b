"""Run with the Python of the chart's tools: print what `sum(clamp_max(METRIC{…}, NUMBER))` consists of, as JSON."""

from __future__ import annotations

import importlib
import json
import sys

if __name__ == "__main__":
    expression = importlib.import_module("promql_parser").parse(sys.argv[1])
    clamp = expression.expr
    selector, most = clamp.args
    matchers = [[matcher.name, str(matcher.op), matcher.value] for matcher in selector.matchers.matchers]
    print(json.dumps({"sum_of": clamp.func.name, "most": most.val, "metric": selector.name, "matchers": matchers}))

"""The alerts for Prometheus' operator: an object with all of alerts.yml in it.

    python -m infra.monitoring.rule_object > infra/kubernetes/components/monitoring/rules.yaml

kustomize cannot put a file into an object. A test compares the two.
"""

import textwrap
from pathlib import Path

HEAD = """\
# Made of infra/monitoring/alerts.yml by `python -m infra.monitoring.rule_object`; do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pvtv2
  namespace: pvtv2
spec:
"""


def rule_object(alerts: str) -> str:
    """The object, as YAML."""
    return HEAD + textwrap.indent(alerts, "  ")


if __name__ == "__main__":
    print(rule_object((Path(__file__).parent / "alerts.yml").read_text()), end="")

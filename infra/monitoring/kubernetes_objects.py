"""Writes the alerts and the dashboard as Kubernetes objects, for Prometheus' operator and the Grafana beside it.

    python -m infra.monitoring.kubernetes_objects      # after a change of alerts.yml or dashboard.json

The script writes `rules.yaml` and `dashboard.yaml` of the component `monitoring`, since kustomize reads no file outside
its folder. A test compares them with their sources.
"""

import textwrap
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_COMPONENT = _HERE.parent / "kubernetes" / "components" / "monitoring"
_MADE_OF = "# Made of infra/monitoring/{} by `python -m infra.monitoring.kubernetes_objects`; do not edit."
_RULES = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pvtv2
  namespace: pvtv2
spec:
"""
_DASHBOARD = """\
# Grafana's sidecar searches all namespaces for this label.
apiVersion: v1
kind: ConfigMap
metadata:
  name: pvtv2-dashboard
  namespace: pvtv2
  labels:
    grafana_dashboard: "1"
data:
  pvtv2-batch.json: |
"""


def objects() -> dict[str, str]:
    """Returns the contents of the component's files by their names."""
    alerts, dashboard = ((_HERE / name).read_text() for name in ("alerts.yml", "dashboard.json"))
    return {
        "rules.yaml": f"{_MADE_OF.format('alerts.yml')}\n{_RULES}{textwrap.indent(alerts, '  ')}",
        "dashboard.yaml": f"{_MADE_OF.format('dashboard.json')}\n{_DASHBOARD}{textwrap.indent(dashboard, '    ')}",
    }


if __name__ == "__main__":
    for name, text in objects().items():
        (_COMPONENT / name).write_text(text)

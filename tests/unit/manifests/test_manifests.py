"""The files that operators apply: they parse, they fit the schemas of those who read them, they keep our own rules."""

import copy
import importlib.metadata
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    RayActorOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
)

from tests.unit.manifests.crd import open_api_schema, violations
from tests.unit.manifests.kustomize import Resource, apply_json_patch, render

ROOT = Path(__file__).parents[3]
KUBERAY = ROOT / "kuberay"
SERVE_CONFIGS = ROOT / "serve_configs"
CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "kuberay-crds"))

YAML_FILES = sorted([*KUBERAY.rglob("*.yaml"), *SERVE_CONFIGS.glob("*.yaml")])
SERVE_FILES = sorted(SERVE_CONFIGS.glob("*.yaml"))
VARIANTS = ["base", "overlays/dev", "overlays/production"]
GRACE_LEFT_FOR_STOPPING_S = 15


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(params=VARIANTS)
def resources(request: pytest.FixtureRequest) -> list[Resource]:
    return render(KUBERAY / request.param)


@pytest.fixture
def ray_service(resources: list[Resource]) -> Resource:
    return only(resources, "RayService")


@pytest.fixture(scope="module")
def rendered_base() -> list[Resource]:
    return render(KUBERAY / "base")


@pytest.fixture(scope="module")
def crd_schema() -> dict[str, Any]:
    path = CRDS / "ray.io_rayservices.yaml"
    if not CRDS.is_dir():
        pytest.skip(
            f"KubeRay's CRDs are not at {CRDS}: name their folder in KUBERAY_CRDS (ray-operator/config/crd/bases of KubeRay)"
        )
    return open_api_schema(path, "v1")


def only(resources: list[Resource], kind: str) -> Resource:
    [found] = [r for r in resources if r["kind"] == kind]
    return found


def cluster(ray_service: Resource) -> dict[str, Any]:
    found: dict[str, Any] = ray_service["spec"]["rayClusterConfig"]
    return found


def group(ray_service: Resource, name: str) -> dict[str, Any]:
    [found] = [g for g in cluster(ray_service)["workerGroupSpecs"] if g["groupName"] == name]
    return dict(found)


def pod_groups(ray_service: Resource) -> list[dict[str, Any]]:
    return [cluster(ray_service)["headGroupSpec"], *cluster(ray_service)["workerGroupSpecs"]]


def container(pod_group: dict[str, Any]) -> dict[str, Any]:
    [found] = pod_group["template"]["spec"]["containers"]
    return dict(found)


def env(pod_group: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in container(pod_group)["env"]}


def pod_labels(pod_group: dict[str, Any]) -> dict[str, str]:
    return dict(pod_group["template"]["metadata"]["labels"])


def selected(ray_service: Resource, selector: dict[str, str]) -> list[dict[str, Any]]:
    return [g for g in pod_groups(ray_service) if selector.items() <= pod_labels(g).items()]


def gateway(ray_service: Resource) -> dict[str, Any]:
    [application] = yaml.load(ray_service["spec"]["serveConfigV2"], Loader=yaml.CSafeLoader)["applications"]
    [deployment] = application["deployments"]
    return dict(deployment)


# ------------------------------------------------------------------------------- Serve configs


def unknown_fields(config: dict[str, Any]) -> list[str]:
    """Fields that Serve's models do not have: Serve ignores them without a word, for forward compatibility."""
    found = _unknown(ServeDeploySchema, config) + _unknown(HTTPOptionsSchema, config.get("http_options", {}))
    for application in config["applications"]:
        found += _unknown(ServeApplicationSchema, application)
        for deployment in application.get("deployments", []):
            found += _unknown(DeploymentSchema, deployment)
            found += _unknown(RayActorOptionsSchema, deployment.get("ray_actor_options", {}))
    return found


def _unknown(model: type[BaseModel], data: dict[str, Any]) -> list[str]:
    return [f"{model.__name__}.{field}" for field in sorted(data.keys() - model.model_fields.keys())]


@pytest.mark.parametrize("path", YAML_FILES, ids=name_of)
def test_every_yaml_file_parses_and_holds_something(path: Path) -> None:
    assert all(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))


@pytest.mark.parametrize("path", SERVE_FILES, ids=name_of)
def test_serve_accepts_every_serve_config(path: Path) -> None:
    config = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)

    ServeDeploySchema.model_validate(config)

    assert unknown_fields(config) == []


@pytest.mark.parametrize("path", SERVE_FILES, ids=name_of)
def test_every_serve_config_serves_the_bank_through_a_bounded_gateway(path: Path) -> None:
    [application] = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["applications"]
    [deployment] = application["deployments"]

    assert application["name"] == "bank"
    assert application["route_prefix"] == "/"
    assert application["import_path"] == "remora.gateway.deployment:build"
    assert application["args"].keys() == {"app", "store", "hosts"}
    assert application["args"]["app"] == "entities.account:app"
    assert deployment["name"] == "Gateway"
    assert deployment["max_ongoing_requests"] >= 1024  # Serve's default is 5
    assert deployment["max_queued_requests"] > 0  # Serve's default, -1, has no bound


def test_the_local_serve_config_listens_to_this_machine_only() -> None:
    config = yaml.load((SERVE_CONFIGS / "local.yaml").read_text(), Loader=yaml.CSafeLoader)

    assert config["http_options"] == {"host": "127.0.0.1", "port": 8000}


def test_a_misspelt_field_of_a_serve_config_is_found() -> None:
    config = yaml.load((SERVE_CONFIGS / "local.yaml").read_text(), Loader=yaml.CSafeLoader)
    deployment = config["applications"][0]["deployments"][0]
    deployment["max_queue_requests"] = deployment.pop("max_queued_requests")

    ServeDeploySchema.model_validate(config)  # Serve itself says nothing

    assert unknown_fields(config) == ["DeploymentSchema.max_queue_requests"]


def test_a_wrong_type_in_a_serve_config_is_found() -> None:
    config = yaml.load((SERVE_CONFIGS / "local.yaml").read_text(), Loader=yaml.CSafeLoader)
    config["applications"][0]["deployments"][0]["max_queued_requests"] = "many"

    with pytest.raises(ValidationError, match="max_queued_requests"):
        ServeDeploySchema.model_validate(config)


# ------------------------------------------------------------------------------- KubeRay's schema


def test_the_ray_service_fits_kuberays_schema(crd_schema: dict[str, Any], ray_service: Resource) -> None:
    assert violations(crd_schema, ray_service) == []


def test_a_misspelt_field_does_not_fit_kuberays_schema(
    crd_schema: dict[str, Any], rendered_base: list[Resource]
) -> None:
    broken = copy.deepcopy(only(rendered_base, "RayService"))
    hosts = broken["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    hosts["readinessProb"] = hosts.pop("readinessProbe")

    [found] = violations(crd_schema, broken)

    assert "'readinessProb' was unexpected" in found


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("/spec/rayClusterDeletionDelaySeconds", "300", "is not of type 'integer'"),
        ("/spec/rayClusterConfig/headGroupSpec/rayStartParams/num-cpus", 0, "is not of type 'string'"),
        ("/spec/rayClusterConfig/authOptions/mode", "tokens", "is not one of"),
        ("/spec/rayClusterConfig/workerGroupSpecs/0/replicas", 1.5, "is not of type 'integer'"),
        (
            "/spec/rayClusterConfig/headGroupSpec/template/spec/containers/0/resources/limits/memory",
            "4 Gi",
            "does not match",
        ),
        (
            "/spec/rayClusterConfig/workerGroupSpecs/0/template/spec/containers/0/readinessProbe/httpGet/port",
            [52365],
            "is not valid under any of the given schemas",
        ),
        (
            "/spec/rayClusterConfig/headGroupSpec/template/spec/containers/0/env/1",
            {"name": "RAY_AUTH_MODE", "value": "disabled"},
            "two items have the key",
        ),
    ],
)
def test_a_wrong_value_does_not_fit_kuberays_schema(
    crd_schema: dict[str, Any], rendered_base: list[Resource], path: str, value: object, message: str
) -> None:
    broken = apply_json_patch(only(rendered_base, "RayService"), [{"op": "replace", "path": path, "value": value}])

    assert any(message in found for found in violations(crd_schema, broken))


SMALL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},  # named like a keyword
                "port": {"x-kubernetes-int-or-string": True},
                "note": {"type": "string", "nullable": True},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "env": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"name": {"type": "string"}}},
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                },
            },
        }
    },
}


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "None", "port": 8000, "note": None},
        {"port": "serve", "labels": {"any": "name"}, "free": {"any": 1}},
        {"env": [{"name": "A"}, {"name": "B"}]},
    ],
)
def test_the_validator_accepts_what_kubernetes_means(spec: dict[str, Any]) -> None:
    assert violations(SMALL_SCHEMA, {"spec": spec}) == []


@pytest.mark.parametrize(
    "resource",
    [
        {},
        {"spec": {"ports": 8000}},
        {"spec": {"port": 80.5}},
        {"spec": {"port": True}},
        {"spec": {"type": None}},
        {"spec": {"labels": {"a": 1}}},
        {"spec": {"env": [{"name": "A"}, {"name": "A"}]}},
        {"spec": {"env": [{"nam": "A"}]}},
    ],
)
def test_the_validator_refuses_what_kubernetes_drops_or_refuses(resource: Resource) -> None:
    assert len(violations(SMALL_SCHEMA, resource)) == 1


def test_a_patch_that_finds_nothing_fails() -> None:
    with pytest.raises(LookupError):
        apply_json_patch({"a": {}}, [{"op": "replace", "path": "/a/b", "value": 1}])
    with pytest.raises(LookupError):
        apply_json_patch({"a": [1]}, [{"op": "test", "path": "/a/0", "value": 2}])


def test_a_patch_changes_a_copy() -> None:
    before = {"a": [1, 2], "b/c": 1}

    after = apply_json_patch(
        before,
        [
            {"op": "test", "path": "/b~1c", "value": 1},
            {"op": "remove", "path": "/b~1c"},
            {"op": "add", "path": "/a/-", "value": 3},
            {"op": "add", "path": "/d", "value": 4},
        ],
    )

    assert after == {"a": [1, 2, 3], "d": 4}
    assert before == {"a": [1, 2], "b/c": 1}


# ------------------------------------------------------------------------------- our own rules


def test_the_ray_service_carries_the_cluster_config_byte_for_byte(ray_service: Resource) -> None:
    assert ray_service["spec"]["serveConfigV2"] == (SERVE_CONFIGS / "cluster.yaml").read_text()


def test_ray_has_one_version_everywhere(ray_service: Resource) -> None:
    installed = importlib.metadata.version("ray")

    assert cluster(ray_service)["rayVersion"] == installed
    assert f"\nFROM rayproject/ray:{installed}-py311\n" in (KUBERAY / "Dockerfile").read_text()


def test_nothing_with_cpus_lands_on_the_head(ray_service: Resource) -> None:
    assert cluster(ray_service)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_host_pods_are_ready_without_a_serve_proxy(ray_service: Resource) -> None:
    hosts = group(ray_service, "hosts")

    assert container(hosts)["readinessProbe"]["httpGet"] == {"path": "/api/local_raylet_healthz", "port": 52365}
    assert hosts["labels"] == {"remora/entity-host": "true"}


def test_gateway_pods_keep_kuberays_probe_of_the_serve_proxy(ray_service: Resource) -> None:
    gateways = container(group(ray_service, "gateways"))

    assert "readinessProbe" not in gateways
    assert gateways["ports"] == [{"name": "serve", "containerPort": 8000}]


def test_every_gateway_pod_gets_one_replica_and_no_other_pod_gets_any(ray_service: Resource) -> None:
    gateways = group(ray_service, "gateways")

    assert gateway(ray_service)["num_replicas"] == gateways["replicas"]
    assert gateway(ray_service)["max_replicas_per_node"] == 1
    assert gateway(ray_service)["ray_actor_options"]["label_selector"] == gateways["labels"]


def test_there_are_cpus_for_every_host(ray_service: Resource) -> None:
    [application] = yaml.load(ray_service["spec"]["serveConfigV2"], Loader=yaml.CSafeLoader)["applications"]

    assert cpus(group(ray_service, "hosts")) >= application["args"]["hosts"]


def test_in_production_every_host_still_fits_when_a_pod_is_gone() -> None:
    ray_service = only(render(KUBERAY / "overlays/production"), "RayService")
    [application] = yaml.load(ray_service["spec"]["serveConfigV2"], Loader=yaml.CSafeLoader)["applications"]
    hosts = group(ray_service, "hosts")
    hosts["replicas"] -= 1

    assert cpus(hosts) >= application["args"]["hosts"]


def cpus(pod_group: dict[str, Any]) -> int:
    return int(container(pod_group)["resources"]["limits"]["cpu"]) * int(pod_group["replicas"])


def test_group_sizes_are_fixed_while_the_autoscaler_is_off(ray_service: Resource) -> None:
    assert "enableInTreeAutoscaling" not in cluster(ray_service)
    for worker_group in cluster(ray_service)["workerGroupSpecs"]:
        assert worker_group["minReplicas"] == worker_group["replicas"] == worker_group["maxReplicas"]


def test_the_drain_ends_before_the_grace_period(ray_service: Resource) -> None:
    for pod_group in pod_groups(ray_service):
        grace_s = pod_group["template"]["spec"]["terminationGracePeriodSeconds"]
        drain_s = int(env(pod_group)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]["value"])
        assert 0 < drain_s == grace_s - GRACE_LEFT_FOR_STOPPING_S
        assert "lifecycle" not in container(pod_group)  # a preStop `ray stop` would end the raylet before its drain
        assert ray_service["spec"]["rayClusterDeletionDelaySeconds"] > grace_s


def test_every_pod_gets_auth_haproxy_and_the_store(ray_service: Resource) -> None:
    assert cluster(ray_service)["authOptions"] == {"mode": "token", "secretName": "remora-ray-auth"}
    for pod_group in pod_groups(ray_service):
        assert env(pod_group)["RAY_AUTH_MODE"]["value"] == "token"
        assert env(pod_group)["RAY_SERVE_ENABLE_HA_PROXY"]["value"] == "1"
        assert env(pod_group)["REMORA_STORE"]["valueFrom"] == {"secretKeyRef": {"name": "remora-store", "key": "url"}}


def test_workers_outlive_a_head_restart_but_not_for_kuberays_ten_minutes(ray_service: Resource) -> None:
    for worker_group in cluster(ray_service)["workerGroupSpecs"]:
        assert 120 <= int(env(worker_group)["RAY_gcs_rpc_server_reconnect_timeout_s"]["value"]) <= 180


@pytest.mark.parametrize("variant", ["base", "overlays/production"])
def test_the_gcs_survives_its_pod_with_a_password_from_a_secret(variant: str) -> None:
    options = cluster(only(render(KUBERAY / variant), "RayService"))["gcsFaultToleranceOptions"]

    assert options["redisPassword"] == {"valueFrom": {"secretKeyRef": {"name": "remora-redis", "key": "password"}}}
    assert "externalStorageNamespace" not in options  # two clusters must never share one


def test_no_second_cluster_starts_while_shards_cannot_cross(ray_service: Resource) -> None:
    assert ray_service["spec"]["upgradeStrategy"] == {"type": "None"}


def test_requests_reach_gateway_pods_only(resources: list[Resource], ray_service: Resource) -> None:
    service = only(resources, "Service")

    assert [g["groupName"] for g in selected(ray_service, service["spec"]["selector"])] == ["gateways"]
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["serve"]
    assert ray_service["spec"]["excludeHeadPodFromServeSvc"] is True


def test_every_group_has_a_budget_that_lets_one_worker_go_and_no_head(
    resources: list[Resource], ray_service: Resource
) -> None:
    budgets = [r["spec"] for r in resources if r["kind"] == "PodDisruptionBudget"]
    guarded = []
    for budget in budgets:
        # maxUnavailable would count by a scale subresource, which RayCluster has not, and allow nothing.
        assert budget.keys() == {"minAvailable", "selector", "unhealthyPodEvictionPolicy"}
        [pod_group] = selected(ray_service, budget["selector"]["matchLabels"])
        assert budget["minAvailable"] == (pod_group["replicas"] - 1 if "groupName" in pod_group else 1)
        guarded.append(pod_labels(pod_group)["remora/role"])

    assert sorted(guarded) == ["entity-host", "gateway", "head"]


def test_no_pod_may_be_root_or_become_it(ray_service: Resource) -> None:
    for pod_group in pod_groups(ray_service):
        pod = pod_group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["automountServiceAccountToken"] is False
        assert container(pod_group)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


def test_every_container_states_requests_and_limits(ray_service: Resource) -> None:
    for pod_group in pod_groups(ray_service):
        resources = container(pod_group)["resources"]
        assert resources["requests"].keys() == resources["limits"].keys() == {"cpu", "memory"}


def test_nothing_needs_a_volume_or_a_stable_name(resources: list[Resource], ray_service: Resource) -> None:
    assert {r["kind"] for r in resources} == {"RayService", "Service", "PodDisruptionBudget"}
    for pod_group in pod_groups(ray_service):
        assert "volumes" not in pod_group["template"]["spec"]


def secrets_in(text: str) -> list[str]:
    """Lines that carry a secret: a URL with a user's password, or a password or token given as a plain value."""
    return [
        line.strip()
        for line in text.splitlines()
        if re.search(r"://[^/\s:@]*:[^/\s@]+@", line)
        or re.search(r"(?i)^\s*-?\s*[\"']?[\w-]*(password|passwd|token|secret)[\"']?\s*:\s*(?!true|false)[^\s#]", line)
    ]


@pytest.mark.parametrize("path", [*YAML_FILES, KUBERAY / "Dockerfile"], ids=name_of)
def test_no_file_holds_a_secret(path: Path) -> None:
    assert secrets_in(path.read_text()) == []
    assert "kind: Secret" not in path.read_text()


@pytest.mark.parametrize(
    "line",
    [
        "store: postgresql://remora:hunter2@db/remora",
        "redisAddress: redis://:hunter2@redis:6379",
        "redisPassword: hunter2",
        "  - auth_token: hunter2",
        '"password": hunter2',
    ],
)
def test_a_secret_in_a_file_would_be_found(line: str) -> None:
    assert secrets_in(line) == [line.strip()]

"""Properties of the manifests that operators rely on: capacity, grace periods, probes, GPUs, least privilege."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from services.embeddings.settings import EmbeddingsSettings
from services.gateway.key_ring import KeyRing
from services.gateway.settings import GatewaySettings
from services.gateway.tenancy.prices import read_prices
from services.inference.model.catalog import ModelSpec
from services.inference.settings import InferenceSettings
from services.runtime.settings import Settings
from tests.support.helm import Manifest, containers, environment, find, template

LONGEST_PUBLIC_STREAM = 900
# The GPUs of a pod, which the size of the checkpoint determines.
CHAT_GPUS = {"qwen3-8b": 1, "qwen3-14b": 1, "qwen2.5vl": 1, "qwen3-vl": 1, "minimax": 4}
"""The GPUs of each chat model that has a file of values."""
GPUS = {model.replace(".", "-"): gpus for model, gpus in {**CHAT_GPUS, "qwen3-embedding-0.6b": 1}.items()}
"""The GPUs of all pools, by their names in Kubernetes."""


def workloads(manifests: list[Manifest]) -> Iterator[Manifest]:
    return (m for m in manifests if m["kind"] in ("Deployment", "StatefulSet", "Pod", "Job"))


def pod_spec(workload: Manifest) -> Manifest:
    return workload["spec"]["template"]["spec"] if "template" in workload["spec"] else workload["spec"]


DELETION_COST = "vilix-deletion-cost"
"""The pod that stays, serves nothing, and has access to the Kubernetes API."""
START = "vilix-start-x"
"""The Job that has it too."""


def long_running(manifests: list[Manifest]) -> list[Manifest]:
    return [m for m in manifests if m["kind"] == "Deployment" and m["metadata"]["name"] != DELETION_COST]


def options(container: Manifest) -> dict[str, str]:
    """Return the options of a command whose arguments are names and values alternately."""
    arguments = container["args"]
    return {name.removeprefix("--"): value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}


@pytest.mark.parametrize("longest", [LONGEST_PUBLIC_STREAM, 60])
def test_grace_periods_cover_the_longest_response(longest: int) -> None:
    manifests = template("values/qwen3-8b", sets=[f"maxStreamSeconds={longest}"])
    for workload in long_running(manifests):
        spec = pod_spec(workload)
        main = spec["containers"][0]
        pre_stop = main["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = int(environment(main)["VILIX_DRAIN_SECONDS"])
        assert pre_stop >= 5, "endpoints must be removed before the server stops listening"
        assert drain > longest
        assert spec["terminationGracePeriodSeconds"] >= pre_stop + drain + 10
    gateway = containers(find(manifests, "Deployment", "vilix-gateway"))["gateway"]
    assert environment(gateway)["VILIX_MAX_STREAM_SECONDS"] == str(longest)


def test_updates_never_drop_below_capacity(production: list[Manifest]) -> None:
    for workload in long_running(production):
        assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_every_workload_has_a_disruption_budget(production: list[Manifest]) -> None:
    for workload in long_running(production):
        budget = find(production, "PodDisruptionBudget", workload["metadata"]["name"])
        assert budget["spec"]["selector"] == workload["spec"]["selector"]


def test_autoscaled_workloads_have_no_fixed_number_of_replicas(production: list[Manifest]) -> None:
    scaled = {
        m["spec"]["scaleTargetRef"]["name"]
        for m in production
        if m["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    }
    assert scaled == {m["metadata"]["name"] for m in long_running(production)}
    assert not [m["metadata"]["name"] for m in long_running(production) if "replicas" in m["spec"]]


def test_pods_request_the_gpus_that_their_models_need(production: list[Manifest]) -> None:
    for name, count in GPUS.items():
        pod = containers(find(production, "Deployment", f"vilix-{name}"))
        resources = pod["triton"]["resources"]
        assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == count
        assert not any("nvidia.com/gpu" in pod[other]["resources"]["limits"] for other in pod.keys() - {"triton"})


def test_triton_is_in_an_mpi_job_where_tensorrt_llm_starts_processes() -> None:
    for engine in ("trtllm", "vllm"):
        manifests = template("values/minimax", sets=[f"models.minimax.engine={engine}"])
        triton = containers(find(manifests, "Deployment", "vilix-minimax"))["triton"]
        assert environment(triton).get("VILIX_MPI") == ("1" if engine == "trtllm" else None)


def test_a_model_may_have_its_own_image_of_triton() -> None:
    image = "registry.example.com/triton-next@sha256:" + "0" * 64
    manifests = template("values/qwen3-8b", "values/qwen3-vl", sets=[f"models.qwen3-vl.tritonImage={image}"])
    images = {
        name: containers(find(manifests, "Deployment", f"vilix-{name}"))["triton"]["image"]
        for name in ("qwen3-8b", "qwen3-vl")
    }
    assert images["qwen3-vl"] == image
    assert "vilix/triton:" in images["qwen3-8b"]


def test_the_demo_needs_no_gpu_and_at_most_4_cores(demo: list[Manifest]) -> None:
    assert "nvidia" not in json.dumps([pod_spec(w) for w in workloads(demo)])
    cores = sum(_cores(c["resources"]["requests"]["cpu"]) for w in long_running(demo) for c in containers(w).values())
    assert cores <= 4


def test_startup_probes_allow_for_slow_loading(production: list[Manifest]) -> None:
    minimax = containers(find(production, "Deployment", "vilix-minimax"))["triton"]["startupProbe"]
    assert minimax["failureThreshold"] * minimax["periodSeconds"] >= 3600
    for workload in long_running(production):
        for container in containers(workload).values():
            if "livenessProbe" in container:
                assert "startupProbe" in container, "a slow start must not be killed by the liveness probe"
                probe = container["livenessProbe"]
                assert probe["failureThreshold"] * probe["periodSeconds"] >= 60


def test_the_liveness_probe_of_triton_queries_the_model_itself(production: list[Manifest]) -> None:
    """It runs the program in the model's own directory."""
    for name in GPUS:
        pod = containers(find(production, "Deployment", f"vilix-{name}"))
        probe = pod["triton"]["livenessProbe"]
        python, isolated, program, model_id, *options = probe["exec"]["command"]
        assert (python, isolated) == ("python3", "-I")
        assert re.fullmatch(name.replace("-", "[-.]"), model_id)
        assert program == f"/repository/{model_id}/1/probe.py"
        values = dict(option.removeprefix("--").split("=") for option in options)
        assert float(values["seconds"]) < probe["timeoutSeconds"]
        assert probe["terminationGracePeriodSeconds"] <= 30, "Kubernetes must not wait long for a frozen process"
        assert values["stall-seconds"] == environment(pod["worker"])["VILIX_ENGINE_STALL_SECONDS"]
        assert "--model-repository=/repository" in pod["triton"]["args"]


def test_the_chart_creates_a_password_for_its_own_valkey(production: list[Manifest], demo: list[Manifest]) -> None:
    secret = find(demo, "Secret", "vilix-valkey")
    assert len(base64.b64decode(secret["data"]["password"])) == 32
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    reference = {"secretKeyRef": {"name": "vilix-valkey", "key": "password"}}
    server = containers(find(demo, "StatefulSet", "vilix-valkey"))["valkey"]
    assert options(server)["requirepass"] == "$(VALKEY_PASSWORD)"
    assert "protected-mode" not in options(server)
    for container in (server, containers(find(demo, "Deployment", "vilix-gateway"))["gateway"]):
        variables = {variable["name"]: variable for variable in container["env"]}
        assert variables["VALKEY_PASSWORD"]["valueFrom"] == reference
    gateway = containers(find(demo, "Deployment", "vilix-gateway"))["gateway"]
    assert environment(gateway)["VILIX_REDIS_URL"] == "redis://:$(VALKEY_PASSWORD)@vilix-valkey:6379/0"


def test_triton_starts_before_its_worker_and_ends_after_it(production: list[Manifest]) -> None:
    for name in GPUS:
        spec = pod_spec(find(production, "Deployment", f"vilix-{name}"))
        assert [c["name"] for c in spec["initContainers"]] == ["weights", "render", "triton"]
        assert spec["initContainers"][-1]["restartPolicy"] == "Always"
        assert [c["name"] for c in spec["containers"]] == ["worker"]


def test_pods_follow_the_restricted_pod_security_standard(
    production: list[Manifest], demo: list[Manifest], starting: list[Manifest]
) -> None:
    assert START in [workload["metadata"]["name"] for workload in workloads(starting)]
    for workload in [*workloads(production), *workloads(demo), *workloads(starting)]:
        spec = pod_spec(workload)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 10000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is (workload["metadata"]["name"] in (DELETION_COST, START))
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert not [volume for volume in spec.get("volumes", ()) if "hostPath" in volume]
        for container in containers(workload).values():
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "cpu" in container["resources"]["requests"]
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize(
    ("sets", "maxmemory"),
    [
        ([], 384 * 2**20),
        (["valkey.resources.limits.memory=1Gi"], 768 * 2**20),
        (["valkey.resources.limits.memory=1.5Gi"], 1152 * 2**20),
        (["valkey.resources.limits.memory=2G"], 1_500_000_000),
        (["valkey.resources.limits.memory=1073741824"], 768 * 2**20),
        (["valkey.maxmemoryPercent=50"], 256 * 2**20),
        (["valkey.resources.limits=null"], None),
    ],
)
def test_valkey_rejects_writes_before_it_reaches_its_memory_limit(sets: list[str], maxmemory: int | None) -> None:
    server = containers(find(template("values/qwen3-8b", sets=sets), "StatefulSet", "vilix-valkey"))["valkey"]
    assert options(server)["maxmemory-policy"] == "noeviction"
    assert options(server).get("maxmemory") == (None if maxmemory is None else str(maxmemory))


def test_manifests_contain_no_secrets() -> None:
    manifests = template(
        "values/qwen3-8b",
        sets=[
            'valkey.passwordSecret={"name": "the-secret", "key": "password"}',
            'gateway.tokenKeysSecret={"name": "sealing", "key": "ring"}',
            'responses.valkey.passwordSecret={"name": "the-other", "key": "password"}',
            'modelDefaults.weights.tokenSecret={"name": "hub", "key": "token"}',
        ],
    )
    assert not [m for m in manifests if m["kind"] == "Secret"]
    gateway = containers(find(manifests, "Deployment", "vilix-gateway"))["gateway"]
    names = [variable["name"] for variable in gateway["env"]]
    assert environment(gateway)["VILIX_REDIS_URL"] == "redis://:$(VALKEY_PASSWORD)@vilix-valkey:6379/0"
    assert names.index("VALKEY_PASSWORD") < names.index("VILIX_REDIS_URL"), (
        "Kubernetes expands only variables that are defined before"
    )
    (job,) = (m for m in manifests if m["kind"] == "Job")
    download = containers(job)["download"]
    token = next(variable for variable in download["env"] if variable["name"] == "VILIX_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "token"}


def test_stored_responses_have_a_valkey_of_their_own_without_a_volume(production: list[Manifest]) -> None:
    manifests = template("values/qwen3-8b")
    server = find(manifests, "StatefulSet", "vilix-responses")
    assert "volumeClaimTemplates" not in server["spec"]
    gateway = containers(find(manifests, "Deployment", "vilix-gateway"))["gateway"]
    assert environment(gateway)["VILIX_STATE_REDIS_URL"] == "redis://:$(RESPONSES_PASSWORD)@vilix-responses:6379/0"
    assert environment(gateway)["VILIX_STATE_REDIS_URL"] != environment(gateway)["VILIX_REDIS_URL"]
    for sets, expected in (
        (["responses.store=false"], {"VILIX_STORE_RESPONSES": "false"}),
        (["responses.url=redis://mine:6379/0"], {"VILIX_STATE_REDIS_URL": "redis://mine:6379/0"}),
    ):
        manifests = template("values/qwen3-8b", sets=sets)
        assert not [m for m in manifests if m["metadata"]["name"] == "vilix-responses"]
        gateway = containers(find(manifests, "Deployment", "vilix-gateway"))["gateway"]
        assert expected.items() <= environment(gateway).items()


def token_keys(manifests: list[Manifest]) -> dict[str, str]:
    """Return the Secret of the gateways' token keys: its name, and the key in it that is mounted as the file."""
    deployment = find(manifests, "Deployment", "vilix-gateway")
    gateway = containers(deployment)["gateway"]
    (mount,) = (mount for mount in gateway["volumeMounts"] if mount["name"] == "token-keys")
    (volume,) = (volume for volume in pod_spec(deployment)["volumes"] if volume["name"] == "token-keys")
    (item,) = volume["secret"]["items"]
    assert environment(gateway)["VILIX_TOKEN_KEYS_FILE"] == f"{mount['mountPath']}/{item['path']}"
    assert "subPath" not in mount, "a single mounted file is never updated"
    return {"name": volume["secret"]["secretName"], "key": item["key"]}


def test_all_gateways_share_the_keys_of_what_clients_keep(tmp_path: Path) -> None:
    given = template(sets=['gateway.tokenKeysSecret={"name": "sealing", "key": "ring"}'])
    assert token_keys(given) == {"name": "sealing", "key": "ring"}
    created = template()
    names = token_keys(created)
    secret = find(created, "Secret", names["name"])
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    (tmp_path / "keys").write_bytes(base64.b64decode(secret["data"][names["key"]]))
    KeyRing(tmp_path / "keys")


def test_environment_variables_are_settings_of_the_services(production: list[Manifest], demo: list[Manifest]) -> None:
    """Services ignore unknown settings silently."""
    for manifests in (production, demo):
        _assert_known(containers(find(manifests, "Deployment", "vilix-gateway"))["gateway"], GatewaySettings)
    _assert_known(containers(find(production, "Deployment", "vilix-qwen3-8b"))["worker"], InferenceSettings)
    _assert_known(
        containers(find(production, "Deployment", "vilix-qwen3-embedding-0-6b"))["worker"], EmbeddingsSettings
    )


def test_tiers_are_mounted_as_a_file_that_can_be_updated() -> None:
    tiers = {"free": {"requests_per_minute": 1_000_000}}
    manifests = template(sets=[f"gateway.tiers={json.dumps(tiers)}"])
    assert yaml.safe_load(find(manifests, "ConfigMap", "vilix-tiers")["data"]["tiers.yaml"]) == {"tiers": tiers}
    gateway = containers(find(manifests, "Deployment", "vilix-gateway"))["gateway"]
    (mount,) = (mount for mount in gateway["volumeMounts"] if mount["name"] == "tiers")
    assert environment(gateway)["VILIX_TIERS_FILE"] == f"{mount['mountPath']}/tiers.yaml"
    assert "subPath" not in mount


def test_prices_are_mounted_as_a_file_of_integers(tmp_path: Path) -> None:
    models = {"qwen3-8b": {"prompt": 1_500_000, "cached": 150_000, "completion": 600_000_000}}
    values = {"currency": "USD", "decimals": 6, "models": models}
    manifests = template(sets=[f"gateway.prices={json.dumps(values)}"])
    file = tmp_path / "prices.yaml"
    file.write_text(find(manifests, "ConfigMap", "vilix-prices")["data"]["prices.yaml"])
    assert read_prices(file).models["qwen3-8b"].completion == 600_000_000
    gateway = containers(find(manifests, "Deployment", "vilix-gateway"))["gateway"]
    (mount,) = (mount for mount in gateway["volumeMounts"] if mount["name"] == "prices")
    assert environment(gateway)["VILIX_PRICES"] == f"{mount['mountPath']}/prices.yaml"
    assert "subPath" not in mount


def test_gateways_get_the_list_of_image_hosts(production: list[Manifest]) -> None:
    gateway = containers(find(production, "Deployment", "vilix-gateway"))["gateway"]
    assert "VILIX_IMAGE_HOSTS" not in environment(gateway)
    listed = template("values/qwen3-8b", sets=['gateway.imageHosts=["img.example.com","cdn.example.com:8443"]'])
    gateway = containers(find(listed, "Deployment", "vilix-gateway"))["gateway"]
    assert environment(gateway)["VILIX_IMAGE_HOSTS"] == "img.example.com,cdn.example.com:8443"


def test_aliases_of_models_reach_the_gateway() -> None:
    gateway = containers(find(template("values/qwen3-8b"), "Deployment", "vilix-gateway"))["gateway"]
    assert "VILIX_ALIASES" not in environment(gateway)
    named = template("values/qwen3-8b", sets=['gateway.aliases={"fast":"qwen3-8b","claude-qwen3-8b":"qwen3-8b"}'])
    gateway = containers(find(named, "Deployment", "vilix-gateway"))["gateway"]
    assert environment(gateway)["VILIX_ALIASES"] == "claude-qwen3-8b=qwen3-8b,fast=qwen3-8b"


def test_gateways_know_all_pools(production: list[Manifest]) -> None:
    variables = environment(containers(find(production, "Deployment", "vilix-gateway"))["gateway"])
    targets = variables["VILIX_INFERENCE_WORKERS"].split(",")
    targets += variables["VILIX_EMBEDDINGS_WORKERS"].split(",")
    assert len(targets) == len(GPUS)
    for target in targets:
        host, _, port = target.rpartition(":")
        name, _, domain = host.partition(".")
        assert domain == "ai.svc.cluster.local.", "the dot at the end saves look-ups in the search list"
        service = find(production, "Service", name)
        assert service["spec"]["clusterIP"] == "None"
        assert int(port) in [p["port"] for p in service["spec"]["ports"]]
    assert variables["VILIX_EXPECTED_EMBEDDING_MODELS"] == "qwen3-embedding-0.6b"
    assert variables["VILIX_EXPECTED_MODELS"].split(",") == sorted(CHAT_GPUS)


def test_services_and_probes_name_existing_ports(production: list[Manifest]) -> None:
    ports_of = {}
    for workload in (m for m in production if m["kind"] in ("Deployment", "StatefulSet")):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        ports = {p["name"]: p["containerPort"] for c in containers(workload).values() for p in c.get("ports", ())}
        ports_of[workload["metadata"]["name"]] = (labels, ports)
        for container in containers(workload).values():
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                for target in container.get(probe, {}).values():
                    if isinstance(target, dict) and "port" in target:
                        assert target["port"] in {*ports, *ports.values()}
    for service in (m for m in production if m["kind"] == "Service"):
        matching = [
            ports for labels, ports in ports_of.values() if service["spec"]["selector"].items() <= labels.items()
        ]
        assert matching, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert all(port["targetPort"] in ports for ports in matching)


def test_values_alone_can_add_a_model() -> None:
    entry = {
        "created": "2026-01-01",
        "owned_by": "us",
        "checkpoint": "us/our-model",
        "licence": "ours",
        "context_length": 1_048_576,
        "engine": {"name": "trtllm"},
        "descriptions": {"en": "Ours."},
    }
    values = {"our-model": {"catalog": entry, "weights": {"repo": "us/our-model"}}}
    manifests = template(sets=[f"models={json.dumps(values)}"])
    catalog = find(manifests, "ConfigMap", "vilix-catalog")["data"]
    written = yaml.safe_load(catalog["our-model.yaml"])
    assert written == {"id": "our-model", **entry}
    assert ModelSpec.model_validate(written).context_length == 1_048_576
    pod = pod_spec(find(manifests, "Deployment", "vilix-our-model"))
    assert {"name": "catalog", "configMap": {"name": "vilix-catalog"}} in pod["volumes"]
    for name in ("render", "worker"):
        mounts = containers(find(manifests, "Deployment", "vilix-our-model"))[name]["volumeMounts"]
        assert any(m["name"] == "catalog" and m["mountPath"] == "/etc/vilix/catalog" for m in mounts)


def test_a_changed_catalog_entry_replaces_the_pods() -> None:
    def checksum(length: int) -> str:
        manifests = template("values/qwen3-8b", sets=[f"models.qwen3-8b.catalog.context_length={length}"])
        annotations = find(manifests, "Deployment", "vilix-qwen3-8b")["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/catalog"])

    assert checksum(1024) == checksum(1024) != checksum(2048)


def test_certificates_have_the_names_that_gateways_expect(production: list[Manifest]) -> None:
    gateway = find(production, "Deployment", "vilix-gateway")
    name = environment(containers(gateway)["gateway"])["VILIX_TLS_SERVER_NAME"]
    for pool in GPUS:
        certificate = find(production, "Certificate", f"vilix-{pool}")["spec"]
        assert name in certificate["dnsNames"]
        assert f"vilix-{pool}.ai.svc" in certificate["dnsNames"]
        assert "server auth" in certificate["usages"]
        workload = find(production, "Deployment", f"vilix-{pool}")
        volume = next(v for v in pod_spec(workload)["volumes"] if v["name"] == "tls")
        assert volume["secret"]["secretName"] == certificate["secretName"]
        assert environment(containers(workload)["worker"])["VILIX_TLS_DIR"] == "/etc/vilix/tls"
    assert "client auth" in find(production, "Certificate", "vilix-gateway")["spec"]["usages"]


def test_the_helm_test_requests_a_token_of_every_chat_model(production: list[Manifest]) -> None:
    pod = find(production, "Pod", "vilix-one-token")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    variables = environment(containers(pod)["one-token"])
    assert variables["URL"] == "http://vilix-gateway:80/api"
    assert variables["EMBEDDING_MODELS"] == "qwen3-embedding-0.6b"
    assert variables["MODELS"].split(",") == sorted(CHAT_GPUS)


def _assert_known(container: Manifest, settings: type[Settings]) -> None:
    known = {f"VILIX_{name.upper()}" for name in settings.model_fields}
    names = {variable["name"] for variable in container["env"] if variable["name"].startswith("VILIX_")}
    assert names <= known


def _cores(quantity: str) -> float:
    return int(quantity.removesuffix("m")) / 1000 if quantity.endswith("m") else float(quantity)

"""The overlays and components in deploy/kubernetes, and the kustomizations of docs/clusters.md, made by kustomize."""

import shutil
import textwrap
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from documents import Block, parse_command, read_blocks
from manifests import FOLDER, PAGE, PODS, VERSIONS, Manifest, all_containers, kustomize, pod_specs, read, resources

from fmnist_optuna.artifacts.place import parse_place
from fmnist_optuna.cli.options import parse_size
from fmnist_optuna.settings import ARTIFACTS

pytestmark = pytest.mark.more

OVERLAYS = ("base", "gpu", "gpu-shared")
COMPONENTS = ("bucket", "metrics")  # what any overlay may take beside
GPU_IMAGE = "fmnist-optuna-gpu"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_makes_the_resources(overlay: str) -> None:
    """All in one namespace, which is among them, with names that lead to what is there; they fit the schemas."""
    made = kustomize(overlay)
    for each in made:
        kubernetes_validate.validate(each, VERSIONS[-1], strict=True)
    names = {f"{each['kind']}/{each['metadata']['name']}" for each in made}
    assert {each["metadata"].get("namespace", "fmnist-optuna") for each in made} == {"fmnist-optuna"}
    assert {name for name in names if not name.startswith("ConfigMap/")} == set(resources())
    for pod in pod_specs([each for each in made if "spec" in each]).values():
        maps = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
        assert {f"ConfigMap/{name}" for name in maps} <= names
        assert {container["image"] for container in pod["containers"]} == {
            "fmnist-optuna:latest" if overlay == "base" else f"{GPU_IMAGE}:latest"
        }


def shown(words: str) -> Block:
    """The one block of docs/clusters.md that has these words."""
    (block,) = [block for block in read_blocks(PAGE) if words in block.text]
    return block


def make_own(folder: Path, kustomization: str, **files: str) -> list[Manifest]:
    """The resources that a kustomization in a folder beside ours makes, all of which fit the schemas."""
    shutil.copytree(FOLDER, folder / "kubernetes")
    mine = folder / "kubernetes" / "mine"
    mine.mkdir()
    for name, text in {"kustomization.yaml": kustomization, **files}.items():
        (mine / name).write_text(text)
    made = kustomize(str(mine))
    for each in made:
        kubernetes_validate.validate(each, VERSIONS[-1], strict=True)
    return made


def test_every_kustomization_is_tested() -> None:
    """Each folder has an overlay or a component, and all are named above."""
    kinds = {path.parent.name: yaml.safe_load(path.read_text())["kind"] for path in FOLDER.rglob("kustomization.yaml")}
    assert kinds == dict.fromkeys(OVERLAYS, "Kustomization") | dict.fromkeys(COMPONENTS, "Component")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_study_of_your_own_takes_the_place_of_ours(tmp_path: Path, overlay: str) -> None:
    """The kustomization that docs/clusters.md shows: its image, study, modules and name are those of every pod."""
    text = textwrap.dedent(shown("files: [study.toml, mine.py]").text).replace("[../base]", f"[../{overlay}]")
    if overlay != "base":
        assert f"On `../gpu` or `../gpu-shared`, which rename the image, it is `name: {GPU_IMAGE}`" in PAGE.read_text()
        text = text.replace("{name: fmnist-optuna,", f"{{name: {GPU_IMAGE},")
    made = make_own(tmp_path, text, **{name: f"# {name}\n" for name in ("study.toml", "mine.py")})
    data = [each["data"] for each in made if each["kind"] == "ConfigMap"]
    assert sorted(data, key=len) == [
        {"STUDY": "my-study"},
        {"study.toml": "# study.toml\n", "mine.py": "# mine.py\n"},
    ]
    for container in all_containers(made).values():
        assert container["image"] == "registry.example.org/fmnist-optuna:1"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_reaches_the_bucket(tmp_path: Path, overlay: str) -> None:
    """The kustomization of docs/clusters.md: keys from the Secret, the way out, and the place for the study."""
    made = make_own(tmp_path, shown("components: [../bucket]").text.replace("[../base]", f"[../{overlay}]"))
    named = {f"{each['kind']}/{each['metadata']['name']}": each for each in made}
    (settings,) = [each for name, each in named.items() if name.startswith("ConfigMap/settings-")]
    assert settings["data"].keys() == {"STUDY", ARTIFACTS}
    assert parse_place(settings["data"][ARTIFACTS]).endpoint == "http://minio.example.org:9000"
    for name, container in all_containers(made).items():
        sources = [kind for source in container["envFrom"] for kind in source.items()]
        assert ("secretRef", {"name": "bucket"}) in sources, name
        if container["name"] in ("init", "winner"):
            assert ("configMapRef", {"name": settings["metadata"]["name"]}) in sources
    policy = named["NetworkPolicy/bucket"]["spec"]
    assert policy == {
        "podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"protocol": "TCP", "port": 9000}]}],
    }  # fmt: skip
    (secret,) = [each for each in read(FOLDER / "secrets.example.yaml") if each["metadata"]["name"] == "bucket"]
    assert set(secret["stringData"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}  # as boto3 reads them


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_prometheus_reaches_workers_and_dashboard(tmp_path: Path, overlay: str) -> None:
    """At the ports where they answer, by the names that docs/clusters.md tells it, from its own namespace alone."""
    made = make_own(tmp_path, f"resources: [../{overlay}]\ncomponents: [../bucket, ../metrics]\n")
    of_dashboard, of_workers = yaml.safe_load(shown("scrape_configs").text)["scrape_configs"]
    (target,), (rule,) = of_dashboard["static_configs"][0]["targets"], of_workers["relabel_configs"]
    host, _, port = target.partition(":")
    containers = all_containers(made)
    worker, dashboard = containers["Job/worker/worker"], containers["Deployment/dashboard/dashboard"]
    told = parse_command(worker["args"])
    assert (told["metrics_host"], told["metrics_port"]) == ("0.0.0.0", 9100)
    ports = {(each["name"], each["containerPort"]) for one in containers.values() for each in one.get("ports", ())}
    assert ports == {(rule["regex"], told["metrics_port"]), ("http", int(port))}
    assert parse_command(dashboard["args"])["allow_host"] == ["dashboard", host]
    assert host == "dashboard.fmnist-optuna.svc"  # service, namespace, and what every cluster has
    policies = {each["metadata"]["name"]: each["spec"] for each in made if each["kind"] == "NetworkPolicy"}
    for name, number in (("worker", told["metrics_port"]), ("dashboard", int(port))):
        assert policies[f"metrics-{name}"] == {
            "podSelector": {"matchLabels": {"app.kubernetes.io/component": name}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
                    "ports": [{"protocol": "TCP", "port": number}],
                }
            ],
        }


@pytest.mark.parametrize("overlay", OVERLAYS[1:])
def test_a_worker_on_a_gpu_has_one_of_its_own(overlay: str) -> None:
    """One GPU a pod; where several share it, each has a limit of its memory."""
    pods = pod_specs([each for each in kustomize(overlay) if "spec" in each])
    (worker,) = pods["Job/worker"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert (parse_command(worker["args"])["gpu_memory"] is not None) == (overlay == "gpu-shared")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_that_has_grown_leaves_before_its_limit(overlay: str) -> None:
    """At nine tenths of the pod's memory at most, and not long before, whatever the overlay gives it."""
    pods = pod_specs([each for each in kustomize(overlay) if "spec" in each])
    (worker,) = pods["Job/worker"]["containers"]
    own = parse_size(parse_command(worker["args"])["memory_limit"], "--memory-limit")
    limit = parse_size(worker["resources"]["limits"]["memory"], "resources.limits.memory")
    assert own is not None
    assert limit is not None
    assert 0.8 * limit <= own <= 0.9 * limit


@pytest.mark.parametrize("overlay", OVERLAYS[1:])
def test_an_overlay_changes_no_other_option(overlay: str) -> None:
    """An overlay names the arguments of the base anew: what a worker is told beside its memory is the same."""
    pods = pod_specs([each for each in kustomize(overlay) if "spec" in each])
    (worker,) = pods["Job/worker"]["containers"]
    (base,) = PODS["Job/worker"]["containers"]
    told, usual = parse_command(worker["args"]), parse_command(base["args"])
    assert {name for name in usual if told[name] != usual[name]} <= {"memory_limit", "gpu_memory"}

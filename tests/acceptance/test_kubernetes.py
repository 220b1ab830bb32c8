"""The files in deploy/kubernetes: by the published schemas, by our own parser, and by the one table of exit statuses.

kubernetes-validate brings the JSON schemas that are made of Kubernetes' own API description. No cluster reads the files
here; what no schema knows, such as fields that belong together, is said by the tests below.
"""

import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from documents import ROOT, parse_command, read_blocks, simple_commands
from manifests import BASE, CONTAINERS, FOLDER, PAGE, PODS, VERSIONS, Manifest, read, resources

from fmnist_optuna.cli.options import parse_duration
from fmnist_optuna.settings import DASHBOARD_TOKEN_FILE, STORAGE
from fmnist_optuna.spec.reading import read_spec
from fmnist_optuna.statuses import Status

NEVER = {int(status) for status in Status if not status.is_healed_by_restart} - {Status.DONE}
HANDS_BACK = {int(Status.HANDED_BACK)}
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
JOBS = {name: resources()[name]["spec"] for name in PODS if name.startswith("Job/")}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_resource_fits_the_schemas(version: str) -> None:
    """No field is unknown, missing or of another kind, in the files as they are written."""
    for each in [*resources().values(), *read(FOLDER / "secrets.example.yaml")]:
        kubernetes_validate.validate(each, version, strict=True)


def test_logs_are_asked_for_once_there_are_some() -> None:
    """While an init container waits kubectl has no logs: the page waits for the pod to be ready first."""
    (block,) = [block for block in read_blocks(PAGE) if "logs --follow" in block.text]
    commands = list(block.commands())
    (index,) = [index for index, words in enumerate(commands) if words[:2] == ["kubectl", "logs"]]
    job = commands[index][-1]
    assert commands[index - 1][:4] == ["kubectl", "wait", job, "--for=jsonpath={.status.ready}=1"]
    assert PODS[f"Job/{job.removeprefix('job/')}"]["initContainers"]


def test_a_wrong_field_is_noticed() -> None:
    """The schemas are strict: a name that is misspelt, deep inside, is refused."""
    worker = yaml.safe_load((BASE / "worker.yaml").read_text())
    worker["spec"]["backoffLimitPerindex"] = worker["spec"].pop("backoffLimitPerIndex")
    with pytest.raises(kubernetes_validate.ValidationError, match="backoffLimitPerindex"):
        kubernetes_validate.validate(worker, VERSIONS[-1], strict=True)


def commands_of(container: Manifest) -> list[list[str]]:
    """The arguments of each command of ours that a container runs."""
    if container.get("command", [])[:2] != ["/bin/sh", "-c"]:
        assert "command" not in container, "the image's entry point is our command"
        return [container["args"]]
    words = [command for line in container["args"][0].splitlines() for command in simple_commands(line)]
    return [line[line.index("fmnist-optuna") + 1 :] for line in words if "fmnist-optuna" in line]


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_command_is_one_of_ours(name: str) -> None:
    """Parsed by the command line itself; none has a URL or a password in its arguments."""
    commands = commands_of(CONTAINERS[name])
    assert commands
    for arguments in commands:
        assert parse_command(arguments)["storage"] is None


def actions(job: Manifest) -> dict[str, set[int]]:
    """The exit statuses that each action of a policy is for."""
    found: dict[str, set[int]] = {}
    for rule in job["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["operator"] == "In"
            found.setdefault(rule["action"], set()).update(rule["onExitCodes"]["values"])
    return found


def test_a_worker_is_started_again_where_that_helps() -> None:
    """By the one table: 75 always and uncounted, what never heals not at all, and all else some times an index."""
    found = actions(JOBS["Job/worker"])
    assert found == {
        "Ignore": HANDS_BACK,
        "FailJob": {int(status) for status in (Status.USAGE, Status.NOT_FOUND, Status.DATA)},
        "FailIndex": {int(status) for status in (Status.MISMATCH, Status.STOPPED)},
    }
    assert found["FailJob"] | found["FailIndex"] == NEVER
    assert JOBS["Job/worker"]["backoffLimitPerIndex"] > 0


@pytest.mark.parametrize("name", ["Job/worker", "Job/winner"])
def test_an_outage_is_waited_for_within_a_pod(name: str) -> None:
    """For an hour, by the pod that works: one that ended would count for the whole life of the Job."""
    (container,) = PODS[name]["containers"]
    assert parse_duration(parse_command(container["args"])["storage_patience"], "--storage-patience") == 3600.0


@pytest.mark.parametrize("name", [name for name, container in CONTAINERS.items() if "command" in container])
@pytest.mark.parametrize(
    ("statuses", "ended", "seconds"),
    [
        ([0], 0, 0),
        ([3, 3, 0], 0, 10),
        ([3] * 1000, Status.NOT_FOUND, 600),
        ([5] * 1000, Status.STORAGE, 3600),
        ([5] * 500 + [3] * 100 + [0], 0, 3000),  # an outage takes no time from the study that is made after it
        ([5, 4], Status.DATA, 5),
    ],
)
def test_a_pod_waits_for_its_study(name: str, statuses: list[int], ended: int, seconds: int) -> None:
    """Ten minutes for one that is not there, an hour for the database; whatever no waiting heals ends it at once."""
    stand_ins = """
        asked=0 slept=0 statuses=($STATUSES)
        fmnist-optuna() { asked=$((asked + 1)); return "${statuses[asked - 1]}"; }
        sleep() { slept=$((slept + $1)); }
        trap 'echo "$slept"' EXIT
    """
    done = subprocess.run(
        ["bash", "-c", stand_ins + CONTAINERS[name]["args"][0]],
        env={"STATUSES": " ".join(map(str, statuses)), "STUDY": "my-study"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, int(done.stdout), done.stderr) == (ended, seconds, "")


@pytest.mark.parametrize("name", ["Job/init", "Job/winner"])
def test_the_other_jobs_end_where_no_start_helps(name: str) -> None:
    """Whatever never heals fails the job."""
    assert actions(JOBS[name]) == {"FailJob": NEVER}


@pytest.mark.parametrize("name", JOBS)
def test_what_belongs_together_is_together(name: str) -> None:
    """A policy wants pods that are not restarted in place; a disruption comes first and counts nothing."""
    job = JOBS[name]
    assert PODS[name]["restartPolicy"] == "Never"
    assert job["podFailurePolicy"]["rules"][0] == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert ("backoffLimitPerIndex" in job) == (job.get("completionMode") == "Indexed") == (name == "Job/worker")
    assert job.get("completions") == job.get("parallelism")


def test_the_grace_is_longer_than_a_worker_takes() -> None:
    """Its own grace, by default ten seconds, fits in the pod's with time to spare; it is asked before SIGTERM."""
    (worker,) = PODS["Job/worker"]["containers"]
    grace = parse_command(worker["args"])["grace"]
    assert grace == "10s"
    assert PODS["Job/worker"]["terminationGracePeriodSeconds"] >= 10 * 2
    assert "kill -USR1 1" in worker["lifecycle"]["preStop"]["exec"]["command"][-1]


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_has_no_more_than_it_needs(name: str) -> None:
    """Pod Security's `restricted`, and a read-only root; /tmp and the shared volume take what it writes."""
    container, pod = CONTAINERS[name], PODS[name.rpartition("/")[0]]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    security = pod["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)  # as in the Dockerfile
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    written = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert written == {"tmp"}
    assert mounts["tmp"] == "/tmp"
    assert {"memory"} <= set(container["resources"]["limits"])
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_the_image_runs_as_the_user_of_the_pods() -> None:
    """A volume that is opened to the group of the pods is open to the user of the image."""
    assert "USER 10001\n" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", CONTAINERS)
def test_each_role_of_the_database_is_where_it_belongs(name: str) -> None:
    """The owner's with `init` alone, the reader's with the dashboard, the worker's with whatever trains."""
    secrets = {each["metadata"]["name"]: each["stringData"] for each in read(FOLDER / "secrets.example.yaml")}
    variables = {variable["name"]: variable for variable in CONTAINERS[name]["env"]}
    reference = variables[STORAGE]["valueFrom"]["secretKeyRef"]
    role = {"Job/init": "owner", "Deployment/dashboard": "reader"}.get(name.rpartition("/")[0], "worker")
    assert reference == {"name": f"storage-{role}", "key": "url"}
    assert secrets[reference["name"]] == {"url": f"postgresql://fmnist_{role}:PASSWORD@HOST/DATABASE"}


def test_the_dashboard_has_its_token_from_a_secret() -> None:
    """Mounted as the file that the variable names."""
    pod, container = PODS["Deployment/dashboard"], CONTAINERS["Deployment/dashboard/dashboard"]
    (secret,) = [volume for volume in pod["volumes"] if "secret" in volume]
    mount = {mount["name"]: mount for mount in container["volumeMounts"]}[secret["name"]]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert variables[DASHBOARD_TOKEN_FILE] == f"{mount['mountPath']}/{secret['secret']['items'][0]['path']}"
    work = {mount["name"]: mount for mount in container["volumeMounts"]}["work"]
    assert (work["readOnly"], mount["readOnly"]) == (True, True)


def test_the_probes_say_a_name_that_the_dashboard_knows() -> None:
    """By the address of the pod it would be refused; an outage of the database, which it tells, restarts nothing."""
    container = CONTAINERS["Deployment/dashboard/dashboard"]
    asked = container["readinessProbe"]["httpGet"]
    assert (asked["path"], asked["httpHeaders"]) == ("/healthz", [{"name": "Host", "value": "localhost"}])
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["tcpSocket"] == {"port": "http"}
    arguments = parse_command(container["args"])
    assert [port["containerPort"] for port in container["ports"]] == [arguments["port"]]
    service = resources()["Service/dashboard"]["spec"]
    assert arguments["allow_host"] == ["dashboard"]
    template = resources()["Deployment/dashboard"]["spec"]["template"]
    assert service["selector"] == template["metadata"]["labels"]


def test_policies_of_the_network_name_pods_that_are_there() -> None:
    """Everything is denied first; each exception is for all pods or for those of one label."""
    policies = {name: each["spec"] for name, each in resources().items() if name.startswith("NetworkPolicy/")}
    labels = [each["spec"]["template"]["metadata"]["labels"] for name, each in resources().items() if name in PODS]
    assert policies["NetworkPolicy/default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies.values():
        chosen = policy["podSelector"].get("matchLabels")
        assert chosen is None or chosen in labels


def test_the_study_is_one_and_its_name_stands_once() -> None:
    """The file has none of its own, so that STUDY alone says it; the data never fall back to others."""
    settings = yaml.safe_load((BASE / "kustomization.yaml").read_text())["configMapGenerator"]
    (name,) = [each["literals"] for each in settings if each["name"] == "settings"]
    spec = read_spec(BASE / "study.toml")
    assert name == [f"STUDY={spec.name}"]
    assert spec.data.source == "fashion-mnist"
    assert "name =" not in (BASE / "study.toml").read_text()


def test_no_file_has_a_credential() -> None:
    """What stands for one is in capitals, in the example alone; what a container must keep for itself is no text."""
    secrets = [(path.name, each) for path in FOLDER.rglob("*.yaml") for each in read(path) if each["kind"] == "Secret"]
    assert {name for name, _ in secrets} == {"secrets.example.yaml"}
    kept = [value for _, each in secrets for value in {**each.get("stringData", {}), **each.get("data", {})}.values()]
    assert {re.sub(r"//fmnist_\w+:", "//ROLE:", value) for value in kept} == {
        "postgresql://ROLE:PASSWORD@HOST/DATABASE", "TOKEN", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY",
    }  # fmt: skip
    texts = [path.read_text() for path in FOLDER.rglob("*") if path.is_file()]
    assert {found for text in texts for found in re.findall(r"://[^\s/:@]+:([^\s@]+)@", text)} == {"PASSWORD"}
    assert not any("secretGenerator" in text for text in texts)
    given = [each for container in CONTAINERS.values() for each in container.get("env", ())]
    given += [{"name": name, "value": value} for each in resources().values() if each["kind"] == "ConfigMap"
              for name, value in each["data"].items()]  # fmt: skip
    secret = re.compile(r"STORAGE$|PASSWORD$|TOKEN$|SECRET|KEY")
    hidden = [each for each in given if secret.search(each["name"])]
    assert {each["name"] for each in hidden} == {STORAGE}
    assert [each for each in hidden if "secretKeyRef" not in each.get("valueFrom", {})] == []


def test_shells_within_the_files_are_well_written() -> None:
    """By shellcheck, as what the image's sh runs."""
    scripts = {container["args"][0] for container in CONTAINERS.values() if "command" in container}
    hooks = [PODS["Job/worker"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]]
    for script in [*scripts, *hooks]:
        done = subprocess.run(
            [SHELLCHECK, "--shell=sh", "-"], input=script, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout

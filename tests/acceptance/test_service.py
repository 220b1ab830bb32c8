"""The team's service: the compose file is sound, and its four roles work together on a real Postgres."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from postgres_roles import as_role, drop_roles, environment_of
from shell import SMALL, Shell, ask, wait_for_address
from sqlalchemy import make_url

from fmnist_optuna.cli.main import app
from fmnist_optuna.settings import DASHBOARD_TOKEN_FILE, STORAGE_FILE, read_dashboard_token

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
ROLES = {"worker": "worker_url", "reader": "reader_url"}  # beside the owner, who is the user of the server's image
SECRETS = {
    *("postgres_password", "storage_url", "worker_password", "worker_url", "reader_password", "reader_url"),
    "dashboard_token",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file, its variables at their defaults."""
    text = (ROOT / "docker-compose.yml").read_text()
    content: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return content


def test_the_compose_file_is_one() -> None:
    """By the specification's own schema."""
    checked = subprocess.run(
        [TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_the_services_refer_to_is_there(compose: dict[str, Any]) -> None:
    """Services, volumes, secrets, and health conditions of services that have a health check."""
    services = compose["services"]
    assert set(services) == {"postgres", "init", "worker", "dashboard"}
    assert set(compose["secrets"]) == SECRETS
    for name, service in services.items():
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"], volume
        for other, wish in service.get("depends_on", {}).items():
            if wish["condition"] == "service_healthy":
                assert "healthcheck" in services[other]
            else:
                assert (wish["condition"], services[other].get("restart")) == (
                    "service_completed_successfully", "on-failure",
                )  # fmt: skip
        for value in service.get("environment", {}).values():
            if value.startswith("/run/secrets/"):
                assert value.rpartition("/")[2] in service["secrets"], f"{name}: {value}"


def test_the_example_of_settings_lists_them_all() -> None:
    """The lines of .env.example are the variables of the compose file, at their defaults."""
    used = set(re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / "docker-compose.yml").read_text()))
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert {tuple(line.split("=", 1)) for line in lines if not line.startswith("#")} == used


def test_the_dashboard_is_for_this_machine_and_reads(compose: dict[str, Any]) -> None:
    """Its port is bound to the loopback, its volume read-only, its storage the reader's; it has a token."""
    dashboard = compose["services"]["dashboard"]
    assert dashboard["ports"] == ["127.0.0.1:8080:8080"]
    assert dashboard["volumes"] == ["work:/data:ro"]
    assert dashboard["environment"] == {
        STORAGE_FILE: "/run/secrets/reader_url",
        DASHBOARD_TOKEN_FILE: "/run/secrets/dashboard_token",
    }
    assert "--writable" not in dashboard["command"]
    assert "ports" not in compose["services"]["postgres"]


@pytest.mark.parametrize("service", ["init", "worker", "dashboard"])
def test_each_command_is_one_of_ours(compose: dict[str, Any], service: str) -> None:
    """Parsed by the command line itself."""
    arguments = compose["services"][service]["command"]
    group: Any = typer.main.get_command(app)
    context = group.make_context("fmnist-optuna", list(arguments))
    name, command, rest = group.resolve_command(context, list(arguments))
    assert command.make_context(name, rest, parent=context).params["storage"] is None
    assert name == service


def test_secrets_are_made_once_and_only_for_their_owner(tmp_path: Path, compose: dict[str, Any]) -> None:
    """`make compose-secrets`: the files that the compose file names; a second call changes nothing."""
    make: list[str | Path] = [
        "make",
        "-s",
        "-f",
        ROOT / "Makefile",
        "-C",
        ROOT,
        "compose-secrets",
        f"PYTHON={sys.executable}",
    ]
    before = (ROOT / "secrets").exists()
    command: list[str | Path] = [sys.executable, ROOT / "deploy" / "make_secrets.py"]
    assert "deploy/make_secrets.py" in subprocess.run(
        [*make, "-n"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True)
    made = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert set(made) == {Path(secret["file"]).name for secret in compose["secrets"].values()} == SECRETS
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    for user, password, url in (
        ("fmnist", "postgres_password", "storage_url"),
        ("worker", "worker_password", "worker_url"),
        ("reader", "reader_password", "reader_url"),
    ):
        parsed = make_url(made[url])
        assert (parsed.username, parsed.password, parsed.host) == (user, made[password], "postgres")
        assert len(made[password]) >= 32
    assert read_dashboard_token({DASHBOARD_TOKEN_FILE: str(tmp_path / "secrets" / "dashboard_token")})
    subprocess.run(command, cwd=tmp_path, check=True)
    assert made == {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert (ROOT / "secrets").exists() == before


# The roles as plain processes


def make_roles(url: str, folder: Path) -> dict[str, str]:
    """What the Postgres container runs on an empty volume; returns the URL of each role, by its secret."""
    owner = make_url(url)
    for role in ROLES:
        (folder / f"{role}_password").write_text(f"{role}'s password")
    environment = {
        **environment_of(url, folder),
        "POSTGRES_USER": str(owner.username),
        "POSTGRES_DB": str(owner.database),
        "SECRETS_FOLDER": str(folder),
        "ROLES": str(ROOT / "deploy" / "postgres" / "roles.sql"),
    }
    script = ROOT / "deploy" / "postgres" / "roles.sh"
    made = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return {secret: as_role(url, role, f"{role}'s password") for role, secret in ROLES.items()}


@pytest.mark.more
def test_the_four_roles_do_a_study_together(tmp_path: Path, empty_postgres_url: str, compose: dict[str, Any]) -> None:
    """Postgres with their roles, init, two workers, a dashboard that cannot write; then the winner."""
    study = tmp_path / "small.toml"
    study.write_text(SMALL)
    try:
        urls = make_roles(empty_postgres_url, tmp_path)
        token = "an-example-token-0123456789"
        secrets = {"storage_url": empty_postgres_url, **urls, "dashboard_token": token}
        for name, url in secrets.items():
            (tmp_path / name).write_text(url + "\n")

        def role(name: str) -> tuple[Shell, list[str]]:
            service = compose["services"][name]
            files = (STORAGE_FILE, DASHBOARD_TOKEN_FILE)
            named = {key: value for key, value in service["environment"].items() if key in files}
            command = [str(study) if part.endswith(".toml") else part for part in service["command"]]
            command = ["127.0.0.1" if part == "0.0.0.0" else "0" if part == "8080" else part for part in command]
            return Shell(tmp_path, {key: str(tmp_path / Path(value).name) for key, value in named.items()}), command

        shell, init = role("init")
        made = shell(*init)
        assert made.code == 0, made.stderr
        watcher, watch = role("dashboard")
        with watcher.start(*watch) as dashboard:
            page = wait_for_address(dashboard, tmp_path / "0.stdout")
            assert ask(page.removesuffix("dashboard") + "api/studies", token=token)[0] == 200
            worker, work = role("worker")
            with worker.start(*work) as first, worker.start(*work) as second:
                assert [first.wait().code, second.wait().code] == [0, 0]
            ran = shell("run", str(study), "--workers", "1", "--json")
            assert ran.code == 0, ran.stderr
            assert ran.json["test_accuracy"] is not None
            answer = json.loads(ask(page.removesuffix("dashboard") + "api/studies/1", token=token)[1])
            assert [trial["state"] for trial in answer["trials"]] == ["Complete", "Complete"]
            assert "small" in answer["note"]["body"]
            dashboard.process.send_signal(signal.SIGTERM)
            assert dashboard.wait().code == 0
        assert shell("verify").code == 0
    finally:
        drop_roles(empty_postgres_url, *ROLES)

"""The files in deploy/kubernetes as tests see them: as they are written, and as kustomize makes them."""

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
BASE = FOLDER / "base"
PAGE = ROOT / "docs" / "clusters.md"
VERSIONS = ("1.30", "1.33", "1.37")  # the first that has all fields, and the last that is known here
Manifest = dict[str, Any]


def read(path: Path) -> list[Manifest]:
    """The resources of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@functools.cache
def kustomize(overlay: str) -> list[Manifest]:
    """The resources that an overlay makes, by kustomize itself."""
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, FOLDER / overlay], capture_output=True, text=True, check=True)
            return [document for document in yaml.safe_load_all(done.stdout) if document]
    pytest.skip("kustomize must be there to make the resources, but there is neither kubectl nor kustomize")


def resources() -> dict[str, Manifest]:
    """Those of the base as they are written, by kind and name."""
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    return {f"{each['kind']}/{each['metadata']['name']}": each for name in listed for each in read(BASE / name)}


def pod_specs(manifests: Iterator[Manifest] | list[Manifest]) -> dict[str, Manifest]:
    """The pods that they start, by kind and name."""
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["spec"]["template"]["spec"]
        for each in manifests
        if "template" in each["spec"]
    }


def all_containers(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The containers of their pods, those of the start among them, by kind, name and their own name."""
    return {
        f"{name}/{container['name']}": container
        for name, pod in pod_specs([each for each in manifests if "spec" in each]).items()
        for container in [*pod.get("initContainers", []), *pod["containers"]]
    }


PODS = pod_specs([each for each in resources().values() if "spec" in each])
CONTAINERS = all_containers(list(resources().values()))

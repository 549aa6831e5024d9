"""Two machines and a cable, as network namespaces: a server on one, processes on the other.

Behind the second one there may be a third, whose packets it translates.
"""

import os
import re
import shutil
import subprocess
from typing import Any
from urllib.parse import urlsplit

from tests.servers import embedded_postgresql, missing

__all__ = ["Network", "Translator"]

#: Addresses of the two ends of the cable, which nobody else sees.
_SERVER, _NODE = "10.213.7.1", "10.213.7.2"
#: And of a second cable, between the node and what is behind it.
_GATE, _BEHIND = "10.213.7.5", "10.213.7.6"

#: Forwards what belongs to a flow that it knows, under its own address, and loses all else.
_TRANSLATE = f"""
    table ip once {{
        chain after {{ type nat hook postrouting priority 100; ip saddr {_BEHIND} masquerade; }}
        chain forward {{ type filter hook forward priority 0; ct state invalid drop; }}
        chain input {{ type filter hook input priority 0; ct state invalid drop; }}
    }}
"""


class Network:
    """A PostgreSQL that processes on a node reach by TCP, and all others by its socket."""

    def __init__(self) -> None:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            missing("root with iproute2")
        self._there = f"once-server-{os.getpid()}"
        self._node = f"once-node-{os.getpid()}"
        for space in (self._there, self._node):
            _ip("netns", "add", space)
        _connect((self._there, "once0", _SERVER), (self._node, "once1", _NODE))
        self._postgresql: Any = embedded_postgresql()
        self.url: str = self._postgresql.get_uri()
        self._listen()

    def on_node(self, *command: str) -> list[str]:
        """A command as it is to be started in order to run on the node."""
        return _in(self._node, *command)

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
            _in(self._there, *user, *start, "-o", options, "start"),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        server.ensure_postgres_running()  # it only learns of the process that it is to end


class Translator:
    """Has the node translate the address of a machine behind it, and forget flows that are idle.

    What comes from a flow that is forgotten is lost, and neither end is told.
    """

    def __init__(self, network: Network, seconds: int) -> None:
        self._network = network
        self._space = f"once-behind-{os.getpid()}"
        if not self._translates():
            missing("nftables, or connection tracking in the kernel")
        _ip("netns", "add", self._space)
        node = network.on_node()[-1]
        _connect((node, "once2", _GATE), (self._space, "once3", _BEHIND))
        _ip("-n", self._space, "route", "add", "default", "via", _GATE)
        for name, value in (
            ("ipv4/ip_forward", 1),
            ("netfilter/nf_conntrack_tcp_loose", 0),  # what it does not know is no flow
            ("netfilter/nf_conntrack_tcp_timeout_established", seconds),
        ):
            self._have_node("tee", f"/proc/sys/net/{name}", given=f"{value}")

    def on_node(self, *command: str) -> list[str]:
        """A command as it is to be started in order to run behind it."""
        return _in(self._space, *command)

    def url_from_node(self, url: str) -> str:
        """What the machine behind it calls a database that others know by this URL."""
        return self._network.url_from_node(url)

    def flows(self) -> set[int]:
        """Ports from which the server sees the flows that it knows."""
        table = self._have_node("cat", "/proc/net/nf_conntrack")
        return {int(port) for port in re.findall(rf"dst={_NODE} sport=5432 dport=(\d+)", table)}

    def end(self) -> None:
        """Leave the node as it was."""
        self._have_node("nft", "delete", "table", "ip", "once")
        self._have_node("ip", "link", "delete", "once2")
        _ip("netns", "delete", self._space)

    def _translates(self) -> bool:
        try:
            self._have_node("nft", "-f", "-", given=_TRANSLATE)
            self.flows()
        except subprocess.CalledProcessError:
            return False
        return True

    def _have_node(self, *command: str, given: str = "") -> str:
        return subprocess.run(
            self._network.on_node(*command),
            input=given,
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        ).stdout


def _connect(*ends: tuple[str, str, str]) -> None:
    """Lay a cable between two namespaces: the namespace, device and address of each end."""
    (here, device, _), (there, other, _) = ends
    _ip("-n", here, "link", "add", device, "type", "veth", "peer", "name", other)
    _ip("-n", here, "link", "set", other, "netns", there)
    for space, end, address in ends:
        _ip("-n", space, "address", "add", f"{address}/30", "dev", end)
        _ip("-n", space, "link", "set", end, "up")


def _in(space: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", space, *command]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)

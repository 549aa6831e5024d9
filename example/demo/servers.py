"""The project's servers: a gunicorn with some workers, on a port of this machine."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from example.demo.pages import Address
from example.demo.processes import Gate, Process, Processes

__all__ = ["Server", "Servers", "release_environment"]

GUNICORN = ("-m", "gunicorn", "--config", "demo/gunicorn.py")


@dataclass(frozen=True, kw_only=True, eq=False)
class Server:
    """A gunicorn master."""

    process: Process
    address: Address

    @property
    def name(self) -> str:
        """What it is called."""
        return self.process.name


class Servers:
    """Starts servers and numbers them."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self._started = 0

    def start(
        self,
        release: int,
        workers: int,
        environment: Mapping[str, str] | None = None,
        gate: Gate | None = None,
    ) -> Server:
        """Start a server, which waits at the gate, if there is one, having loaded Django."""
        self._started += 1
        with socket.create_server(("127.0.0.1", 0)) as listener:
            process = self.processes.start(
                f"server {self._started}",
                GUNICORN,
                {
                    **release_environment(release),
                    "EXAMPLE_SOCKET": str(listener.fileno()),
                    "EXAMPLE_WORKERS": str(workers),
                    **(environment or {}),
                },
                pass_fds=[listener.fileno()],
                gate=gate,
            )
            return Server(process=process, address=listener.getsockname())


def release_environment(release: int) -> dict[str, str]:
    """What makes the code that of a release, and what tells ``once`` of it."""
    return {"EXAMPLE_RELEASE": str(release), "ONCE_RELEASE": str(release)}

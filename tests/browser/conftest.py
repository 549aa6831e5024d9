"""Fixtures: a real browser, and who is logged in there."""

import threading
from collections.abc import Callable, Iterator

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.test import Client
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome

from example.browser import prefer, start
from tests.servers import missing
from tests.waiting import wait_until


@pytest.fixture(scope="session")
def _chromium(
    live_server: LiveServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chrome]:
    """It ends before the server does, which takes back what its threads were lent."""
    browser = start(tmp_path_factory.mktemp("chromium"))
    if browser is None:
        missing("chromium and chromium-driver")
    assert browser is not None
    yield browser
    browser.quit()
    # Each serves a connection that is kept alive, and at its end closes the databases lent to it.
    wait_until(lambda: not any(_serves(thread) for thread in threading.enumerate()))


def _serves(thread: threading.Thread) -> bool:
    return "process_request_thread" in thread.name


@pytest.fixture
def browser(_chromium: Chrome) -> Iterator[Chrome]:
    """A browser in which nobody is logged in, and whose page reads nothing once the test ends."""
    _chromium.delete_all_cookies()
    prefer(_chromium, "light")
    yield _chromium
    _chromium.get("about:blank")


@pytest.fixture
def login(browser: Chrome, live_server: LiveServer) -> Callable[..., None]:
    """Log somebody of the staff in, with these permissions."""

    def log_in(*codenames: str) -> None:
        user = User.objects.create_user("ada", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        name = settings.SESSION_COOKIE_NAME
        browser.get(f"{live_server.url}/static/once/admin.css")  # a cookie belongs to a page
        browser.add_cookie({"name": name, "value": client.cookies[name].value})

    return log_in


@pytest.fixture(autouse=True)
def _bare(bare: None) -> None: ...

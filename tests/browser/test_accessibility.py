"""Every page of the admin, asked by axe-core: wide, narrow, light, dark, English, German."""

from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.test import override_settings
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from example.browser import prefer, resize
from once import Routine, content
from tests.support import last, rows, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

AXE = Path(
    str(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js"))
).read_text()
ASK = """
const done = arguments[arguments.length - 1];
axe.run({preload: false, resultTypes: ["violations"]}).then(
    ({violations}) => done(violations.map(({id, nodes}) => [id, nodes.map(({html}) => html)])),
    (error) => done([["axe", [String(error)]]]),
);
"""
#: Because a colour that is on its way to another one is neither.
STILL = "document.head.append(Object.assign(document.createElement('style'), "
STILL += "{textContent: '* { transition: none !important }'}));"
SENT = """
const form = document.createElement("form");
form.method = "post";
form.action = "/admin/once/routine/";
form.innerHTML = document.querySelector("[name=csrfmiddlewaretoken]").outerHTML;
for (const [name, value] of arguments[0])
    form.append(Object.assign(document.createElement("input"), {name, value}));
document.body.append(form);
window.isLeft = true;
form.submit();
"""
IS_THERE = "return !window.isLeft && document.readyState === 'complete'"
ALL = "view_routine", "view_attempt", "reset_routine", "fake_routine", "pause_routine"
ADMIN = "/admin/once/"
VIEWS = [(1400, "light"), (1400, "dark"), (390, "dark"), (390, "light")]


@pytest.fixture
def pages(browser: Chrome, live_server: LiveServer, declared: list[Routine]) -> Iterator[Any]:
    """Opens each page in turn, and yields its name."""

    def bad() -> None:
        raise LookupError("no such currency")

    def fill(batch: list[int]) -> None:
        """Fill a column."""
        if 2 in batch:
            raise LookupError("no item 2")

    declared += [
        seed("default", "shop.bad", function=bad),
        seed("default", "shop.held", function=bad, atomic=False, retry=False),
        seed("default", "shop.fill", function=fill, over=lambda: [1, 2, 3], max_errors=1),
        seed("default", "shop.slow", function=fill, over=lambda: [1], rest=1.0),
        seed("sqlite", "bank.seed"),
    ]
    for each in declared[:3]:
        run(each)  # alone, because a run ends with the first that fails
    declared.append(seed("default", "shop.lost", scope=content("nowhere/*.csv")))

    def opened() -> Iterator[str]:
        def get(path: str) -> str:
            browser.get(f"{live_server.url}{ADMIN}{path}")
            return path

        yield get("routine/")
        yield get("routine/?q=shop&p=2")
        yield get("routine/?q=nothing")
        for name, shown in (("shop.bad", "traceback"), ("shop.fill", "failed-items")):
            yield get(f"routine/{quote(f'default:{name}')}/change/")
            assert browser.find_elements(By.ID, shown)
        yield get("attempt/")
        yield get(f"attempt/{last('default').pk}/change/")
        chosen = [("_selected_action", f"default:shop.{each}") for each in ("held", "slow")]
        for action in ("reset", "fake", "pause", "set", "set without a reason"):
            action, *more = action.split(" ", 1)
            sent = [("action", action), *chosen, *(("post", each) for each in more)]
            browser.execute_script(SENT, sent)
            WebDriverWait(browser, 60).until(lambda browser: browser.execute_script(IS_THERE))
            assert browser.find_elements(By.ID, "id_reason")
            yield " ".join([action, *more])
        rows("sqlite", "ALTER TABLE once_attempt RENAME TO elsewhere")
        try:
            yield get("routine/?app=bank")
            yield get(f"routine/{quote('sqlite:bank.seed')}/change/")
        finally:
            rows("sqlite", "ALTER TABLE elsewhere RENAME TO once_attempt")
        yield get("routine/?state=pending")

    yield opened
    resize(browser, None)


@pytest.mark.parametrize(
    ("language", "views"), [("en-us", VIEWS[:3]), ("de", VIEWS[3:])], ids=["English", "German"]
)
def test_no_page_violates_a_rule_of_axe(
    language: str,
    views: list[tuple[int, str]],
    browser: Chrome,
    login: Callable[..., None],
    pages: Callable[[], Iterator[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("once.admin.pages.PER_PAGE", 3)
    login(*ALL)
    found = []
    with override_settings(LANGUAGE_CODE=language):
        for page in pages():
            browser.execute_script(AXE + STILL)
            assert browser.execute_script("return document.documentElement.lang") == language
            for width, scheme in views:
                resize(browser, width)
                prefer(browser, scheme)
                violations = browser.execute_async_script(ASK)
                found += [(page, width, scheme, *each) for each in violations]
    assert found == []

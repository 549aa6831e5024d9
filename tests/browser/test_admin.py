"""The admin in a real browser: what a person sees there, and does."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from pytest_django.live_server_helper import LiveServer
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.ui import WebDriverWait

from example.browser import prefer
from once import Routine
from once.databases import database
from once.models import Attempt
from once.record import history, recorder
from tests.project import Project, with_database
from tests.servers import database_url
from tests.support import attempts, begin, last, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

LIST = "/admin/once/routine/"
FILL = f"{LIST}default_3Aplant.fill/change/"
CHECKBOX = "_selected_action"
ALL = ("view_routine", "view_attempt", "reset_routine", "fake_routine")
#: The least contrast of text that WCAG 2.2 asks for at level AA (1.4.3).
CONTRAST = 4.5

#: Every element with text of its own: what it says, its colour, and the colours behind it.
COLOURS = """
const found = [];
for (const element of document.querySelectorAll("#content *, .breadcrumbs, .messagelist li")) {
    const texts = [...element.childNodes].filter(node => node.nodeType === Node.TEXT_NODE);
    const said = texts.map(node => node.textContent.trim()).join(" ").trim();
    if (!said || !element.checkVisibility() || element.closest(".visually-hidden")) continue;
    const behind = [];
    for (let each = element; each; each = each.parentElement)
        behind.push(getComputedStyle(each).backgroundColor);
    found.push([said, getComputedStyle(element).color, behind]);
}
return found;
"""


def failing(name: str = "shop.bad", **options: object) -> Routine:
    def body() -> None:
        raise LookupError("no such currency")

    return seed("default", name, function=body, **options)


def one(browser: Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def texts(browser: Chrome, selector: str) -> list[str]:
    return [each.text for each in browser.find_elements(By.CSS_SELECTOR, selector)]


def follow(browser: Chrome, element: WebElement) -> None:
    """Click on what leads to another page, and wait until that is there."""
    element.click()

    def is_gone(browser: Chrome) -> bool:
        try:
            return not element.is_enabled()
        except StaleElementReferenceException:
            return True

    WebDriverWait(browser, 60).until(is_gone)
    WebDriverWait(browser, 60).until(
        lambda browser: browser.execute_script("return document.readyState") == "complete"
    )


def choose(browser: Chrome, action: str, *names: str) -> None:
    """Take an action about routines from the list."""
    for name in names:
        one(browser, f"[aria-label='Select {name}']").click()
    Select(one(browser, "select[name=action]")).select_by_value(action)
    follow(browser, one(browser, ".actions button"))


def confirm(browser: Chrome, reason: str) -> None:
    one(browser, "#id_reason").send_keys(reason)
    follow(browser, one(browser, "input[type=submit]"))


def rgb(colour: str) -> tuple[float, ...]:
    return tuple(map(float, re.findall(r"[\d.]+", colour)))


def luminance(colour: tuple[float, ...]) -> float:
    """By the definition of WCAG 2.2."""
    parts = [part / 255 for part in colour[:3]]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(front: str, behind: list[str]) -> float:
    """How well a colour is told from the first one behind it that is not transparent."""
    back = next(colour for colour in map(rgb, behind) if len(colour) == 3 or colour[3] == 1)
    dark, light = sorted([luminance(rgb(front)), luminance(back)])
    return (light + 0.05) / (dark + 0.05)


def test_a_person_logs_in_and_finds_the_routines(
    browser: Chrome, live_server: LiveServer, declared: list[Routine]
) -> None:
    declared.append(seed("default"))
    User.objects.create_superuser("ada", password="only for tests")
    browser.get(f"{live_server.url}/admin/")
    one(browser, "#id_username").send_keys("ada")
    one(browser, "#id_password").send_keys("only for tests")
    follow(browser, one(browser, "input[type=submit]"))
    follow(browser, browser.find_element(By.LINK_TEXT, "Routines"))
    assert texts(browser, "#result_list tbody th") == ["shop.seed"]
    follow(browser, browser.find_element(By.LINK_TEXT, "shop.seed"))
    assert one(browser, "h1").text == "shop.seed"


def test_list_shows_routines_in_their_states(
    browser: Chrome, live_server: LiveServer, login: Callable[..., None], declared: list[Routine]
) -> None:
    fill = seed("default", "shop.fill", function=lambda batch: None, over=lambda: [1])
    declared += [seed("default"), failing(), failing("shop.held", atomic=False, retry=False), fill]
    for routine in (*declared[:3], seed("default", "shop.gone")):
        run(routine)
    declared.append(seed("default", "shop.new"))
    login(*ALL)
    with database("default").lock("shop.fill", 15.0) as lock:
        take(lock)
        attempt = begin(fill)
        recorder.resume(attempt, history.progress(attempt))
        Attempt.objects.filter(routine="shop.fill").update(cursor="x", processed=30, total=40)
        browser.get(f"{live_server.url}{LIST}")
    names, states = texts(browser, "#result_list tbody th"), texts(browser, "td .once-state")
    assert dict(zip(names, states, strict=True)) == {
        "shop.bad": "failed",
        "shop.held": "held",
        "shop.fill": "running",
        "shop.new": "pending",
        "shop.seed": "completed",
        "shop.gone": "unknown",
    }
    bar = one(browser, "progress")
    assert (bar.accessible_name, bar.aria_role) == ("Progress of shop.fill", "progressbar")
    assert bar.get_property("position") == 0.75
    assert "30 of 40 (75%)" in one(browser, "#result_list").text
    follow(browser, browser.find_element(By.PARTIAL_LINK_TEXT, "Failed"))
    assert texts(browser, "#result_list tbody th") == ["shop.bad"]
    follow(browser, browser.find_element(By.LINK_TEXT, "shop.bad"))
    assert texts(browser, "#attempts .once-error") == ["LookupError: no such currency"]
    assert "Traceback (most recent call last)" in one(browser, "pre").text


def test_nothing_is_wider_than_the_page(
    browser: Chrome, live_server: LiveServer, login: Callable[..., None], declared: list[Routine]
) -> None:
    declared.append(failing(f"shop.{'long' * 40}"))
    run(declared[0])
    login(*ALL)
    browser.get(f"{live_server.url}{LIST}")
    widths = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    assert len({*browser.execute_script(widths)}) == 1
    follow(browser, one(browser, "#result_list tbody th a"))
    assert len({*browser.execute_script(widths)}) == 1


def test_a_person_has_a_held_routine_tried_again(
    browser: Chrome, live_server: LiveServer, login: Callable[..., None], declared: list[Routine]
) -> None:
    declared.append(failing("shop.held", atomic=False, retry=False))
    run(declared[0])
    login(*ALL)
    browser.get(f"{live_server.url}{LIST}")
    choose(browser, "reset", "shop.held")
    assert "What it did outside of the database may be done twice." in one(browser, "#content").text
    assert attempts("default") == [("shop.held", 1, "failed")]
    confirm(browser, "the partner has nothing")
    assert texts(browser, ".messagelist li") == ["“shop.held” is pending again."]
    assert texts(browser, "td .once-state") == ["pending"]
    decision = last("default")
    assert (decision.user, decision.reason) == ("ada", "the partner has nothing")


def test_a_person_records_a_routine_as_done_from_its_page(
    browser: Chrome, live_server: LiveServer, login: Callable[..., None], declared: list[Routine]
) -> None:
    declared.append(seed("default"))
    login(*ALL)
    browser.get(f"{live_server.url}{LIST}")
    follow(browser, browser.find_element(By.LINK_TEXT, "shop.seed"))
    follow(browser, one(browser, ".submit-row button[value=fake]"))
    confirm(browser, "it is there already")
    assert texts(browser, ".messagelist li") == ["“shop.seed” is recorded as done."]
    assert texts(browser, "td .once-state") == ["completed"]


def test_who_has_no_permission_sees_no_action(
    browser: Chrome, live_server: LiveServer, login: Callable[..., None], declared: list[Routine]
) -> None:
    declared.append(failing())
    run(declared[0])
    login("view_routine")
    browser.get(f"{live_server.url}{LIST}")
    assert texts(browser, "#result_list tbody th") == ["shop.bad"]
    assert texts(browser, ".actions, [type=checkbox]") == []
    follow(browser, browser.find_element(By.LINK_TEXT, "shop.bad"))
    assert texts(browser, ".submit-row") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(
    scheme: str,
    browser: Chrome,
    live_server: LiveServer,
    login: Callable[..., None],
    declared: list[Routine],
) -> None:
    declared += [seed("default"), failing(), failing("shop.held", atomic=False, retry=False)]
    for routine in (*declared, seed("default", "shop.gone")):
        run(routine)
    declared.append(seed("default", "shop.new"))
    login(*ALL)
    prefer(browser, scheme)
    browser.get(f"{live_server.url}{LIST}")
    ground = rgb(one(browser, "body").value_of_css_property("background-color"))
    assert (luminance(ground) < 0.5) == (scheme == "dark")
    pages = [browser.execute_script(COLOURS)]
    follow(browser, browser.find_element(By.LINK_TEXT, "shop.bad"))
    pages.append(browser.execute_script(COLOURS))
    follow(browser, one(browser, ".submit-row button[value=reset]"))
    pages.append(browser.execute_script(COLOURS))
    for page in pages:
        assert len(page) > 5
        faint = [said for said, front, behind in page if contrast(front, behind) < CONTRAST]
        assert faint == []


# Pages that move by themselves


def tuned(browser: Chrome, live_server: LiveServer, action: str, **fields: str) -> None:
    """Decide about the backfill on its page, and come back to that."""
    browser.get(f"{live_server.url}{FILL}")
    follow(browser, one(browser, f".submit-row button[value={action}]"))
    for name, value in fields.items():
        one(browser, f"#id_{name}").send_keys(value)
    confirm(browser, "because")
    browser.get(f"{live_server.url}{FILL}")
    browser.execute_script("window.isTheSame = true")


def wait_for(browser: Chrome, is_there: Callable[[], bool]) -> None:
    """Wait until the page that is shown has moved so far, which was not loaded again."""
    errors = [StaleElementReferenceException]
    WebDriverWait(browser, 60, 0.1, errors).until(lambda browser: is_there())
    assert browser.execute_script("return window.isTheSame")


def test_backfill_of_another_process_is_paused_tuned_resumed_and_seen_to_end(
    browser: Chrome,
    live_server: LiveServer,
    login: Callable[..., None],
    declared: list[Routine],
    tmp_path: Path,
) -> None:
    def state() -> str:
        return one(browser, ".once-facts .once-state").text

    def done() -> int:
        return int(one(browser, "progress").get_attribute("value") or 0)

    url = with_database(database_url(), str(connections["default"].settings_dict["NAME"]))
    project = Project(tmp_path, url, url)
    project.routines("""
        @routine(over=lambda: range(2000), batch_size=1, rest=0.1)
        def fill(batch):
            pass
        """)
    options: dict[str, Any] = {"over": lambda: [1], "batch_size": 1, "rest": 0.1}
    declared.append(seed("default", "plant.fill", function=lambda batch: None, **options))
    login(*ALL, "pause_routine")
    process = project.once("work")
    try:
        process.wait_for("event=started")
        browser.get(f"{live_server.url}{FILL}")
        browser.execute_script("window.isTheSame = true")
        wait_for(browser, lambda: state() == "running" and done() > 0)
        before = done()
        wait_for(browser, lambda: done() > before)
        assert f"(pid {process.pid}) for " in one(browser, ".once-facts").text
        tuned(browser, live_server, "pause")
        wait_for(browser, lambda: state() == "paused")
        tuned(browser, live_server, "set", batch_size="1000", rest="0")
        pace = "batch_size=1000 (set by ada), rest=0 (set by ada)"
        assert pace in one(browser, ".once-facts").text
        tuned(browser, live_server, "resume")
        wait_for(browser, lambda: state() == "completed")
        assert one(browser, "#once-live").get_attribute("data-seconds") == "0"
        assert texts(browser, "#attempts .once-state") == ["succeeded", "interrupted"]
    finally:
        project.close()


def test_list_that_moves_keeps_ticks_focus_details_and_what_is_typed(
    browser: Chrome, live_server: LiveServer, login: Callable[..., None], declared: list[Routine]
) -> None:
    declared += [seed("default", "shop.one"), seed("default", "shop.two"), failing()]
    run(declared[2])
    login(*ALL)
    browser.get(f"{live_server.url}{LIST}")
    browser.execute_script("window.isTheSame = true")
    one(browser, "[name=q]").send_keys("shop")
    Select(one(browser, "select[name=action]")).select_by_value("fake")
    two = one(browser, "[aria-label='Select shop.two']")
    two.click()
    run(declared[0])
    wait_for(browser, lambda: "completed" in texts(browser, "td .once-state"))
    assert texts(browser, "#result_list tbody th") == ["shop.bad", "shop.two", "shop.one"]
    assert browser.switch_to.active_element == two
    assert [each.is_selected() for each in browser.find_elements(By.NAME, CHECKBOX)] == [
        *(False, True, False)
    ]
    assert one(browser, "select[name=action]").get_attribute("value") == "fake"
    assert one(browser, "[name=q]").get_attribute("value") == "shop"


def test_page_that_cannot_be_read_again_says_so(
    browser: Chrome, live_server: LiveServer, login: Callable[..., None], declared: list[Routine]
) -> None:
    declared.append(seed("default"))
    login(*ALL)
    browser.get(f"{live_server.url}{LIST}")
    browser.execute_script("window.isTheSame = true")
    assert not one(browser, "#once-stale").is_displayed()
    browser.delete_all_cookies()
    wait_for(browser, lambda: one(browser, "#once-stale").is_displayed())
    assert texts(browser, "#result_list tbody th") == ["shop.seed"]


def test_all_routines_of_a_page_are_ticked_at_once(
    browser: Chrome, live_server: LiveServer, login: Callable[..., None], declared: list[Routine]
) -> None:
    declared += [seed("default", "shop.one"), seed("default", "shop.two")]
    login(*ALL)
    browser.get(f"{live_server.url}{LIST}")
    one(browser, "#once-all").click()
    assert all(each.is_selected() for each in browser.find_elements(By.NAME, CHECKBOX))
    one(browser, "[aria-label='Select shop.two']").click()
    assert not one(browser, "#once-all").is_selected()

"""The admin: what its pages show, who may decide there, and what comes of that."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.db import IntegrityError, OperationalError, connections
from django.db.models import F
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils.html import strip_tags

from once import Routine, content
from once.admin import AttemptAdmin, RoutineAdmin
from once.admin.pages import PER_PAGE
from once.admin.rows import marked
from once.databases import database
from once.models import Attempt, Completion, Now, State
from once.models import Routine as RoutineModel
from once.record import history, recorder
from once.routines.names import CALL
from once.status.text import duration
from tests.support import attempts, begin, effects, last, rows, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

LIST = "/admin/once/routine/"
ALL = ("view_routine", "view_attempt", "reset_routine", "fake_routine")


def login(*codenames: str, name: str = "ada") -> Client:
    """A browser in which somebody of the staff with these permissions is logged in."""
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client(enforce_csrf_checks=False)
    client.force_login(user)
    return client


@pytest.fixture
def staff() -> Client:
    return login(*ALL)


def text(response: Any) -> str:
    """What a page says, in one line."""
    assert response.status_code == 200, response
    body = response.content.decode().partition("<body")[2]
    return " ".join(unescape(strip_tags(f"<body{body}")).split())


def page(client: Client, name: str, using: str | None = "default") -> str:
    """What the page of a routine says."""
    name = quote(f"{using or ''}:{name}")
    return text(client.get(f"{LIST}{name}/change/"))


def decide(
    client: Client, action: str, *names: str, using: str = "default", seen: str = "", **data: Any
) -> Any:
    """Take a decision; with what was seen of the routines, as a person who confirms it."""
    confirmed = {"post": "yes", "seen": [seen] * len(names), "reason": "because"} if seen else {}
    ids = [f"{using}:{name}" for name in names]
    chosen = {"action": action, "_selected_action": ids, **confirmed, **data}
    return client.post(LIST, chosen, follow=True)


def failing(using: str, name: str = "shop.bad", **options: Any) -> Routine:
    def body() -> None:
        raise LookupError("no such currency")

    return seed(using, name, function=body, **options)


def in_every_state(using: str, suffix: int) -> list[Routine]:
    """Routines that ask all there is to ask, each with a history."""
    done = seed(using, f"shop.done{suffix}")
    bad = failing(using, f"shop.bad{suffix}")
    held = failing(using, f"shop.held{suffix}", atomic=False, retry=False)
    died = seed(using, f"shop.died{suffix}")
    died_for_good = seed(using, f"shop.mute{suffix}", atomic=False, retry=False)
    for one in (done, bad, held):
        run(one)
    begin(died)
    begin(died_for_good)
    run(seed(using, f"{CALL}prices{suffix}"), seed(using, f"shop.gone{suffix}"))
    return [done, bad, held, died, died_for_good, seed(using, f"shop.new{suffix}")]


@contextmanager
def elsewhere(routine: Routine) -> Iterator[None]:
    """While another process runs a routine."""
    with database(routine.using).lock(routine.name, 15.0) as lock:
        take(lock)
        begin(routine)
        yield


# The list


def test_list_names_no_scope_that_is_the_usual_one(
    staff: Client, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RELEASE", "1")
    declared.append(seed("default", "shop.usual"))
    declared.append(seed("default", "shop.rare", scope="release"))
    shown = staff.get(LIST)
    assert {row.status.name: row.per for row in shown.context["rows"]} == {
        "shop.usual": "",
        "shop.rare": "per release",
    }
    assert b"per database" not in shown.content


def test_list_shows_every_routine_first_what_asks_for_a_person(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared += in_every_state(using, 1)
    declared.append(Routine(function=lambda: None, name="shop.warm", scope="process"))
    shown = staff.get(LIST).context["rows"]
    assert [(row.status.name, row.status.state) for row in shown] == [
        ("shop.bad1", "failed"),
        ("shop.held1", "held"),
        ("shop.mute1", "held"),
        ("shop.died1", "pending"),
        ("shop.new1", "pending"),
        ("shop.warm", "pending"),
        ("shop.done1", "completed"),
        ("call:prices1", "completed"),
        ("shop.gone1", "unknown"),
    ]


def test_list_says_what_happened_and_what_comes_next(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared += in_every_state(using, 1)
    shown = text(staff.get(LIST))
    assert "LookupError: no such currency" in shown
    assert "Traceback" not in shown
    assert "manage.py once reset shop.held1 has it tried again" in shown
    assert "The next manage.py once run or server start takes over." in shown
    assert "shop.new1 is new and would run, while database" in shown
    assert "if no release has it any more, manage.py once forget shop.gone1 removes that." in shown
    assert f"{last(using).host}, pid {last(using).pid}" in shown


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            # As PostgreSQL words it.
            IntegrityError('violates "brand_pkey"\nDETAIL:  Key (name)=(a) already exists.'),
            'IntegrityError: violates "brand_pkey"',
        ),
        (
            ExceptionGroup("no such brands", [ValueError("no such brand"), KeyError(1)]),
            "ExceptionGroup: no such brands (2 sub-exceptions): ValueError: no such brand",
        ),
        (ValueError("x" * 5_000), f"ValueError: {'x' * 282} [...]"),
    ],
    ids=["detail", "group", "long"],
)
def test_list_names_an_error_by_its_first_line_and_the_history_has_the_whole(
    error: Exception, line: str, using: str, staff: Client, declared: list[Routine]
) -> None:
    def body() -> None:
        raise error

    declared.append(seed(using, "shop.bad", function=body))
    run(*declared)
    shown = text(staff.get(LIST))
    assert f" {line} " in shown
    for more in ("DETAIL", "KeyError", "+---", "x" * 283, "Traceback"):
        assert more not in shown
    assert " ".join(str(error).split()) in page(staff, "shop.bad", using)


def test_list_says_who_runs_what_is_new(using: str, staff: Client, declared: list[Routine]) -> None:
    declared.append(seed(using, "shop.first"))
    shown = text(staff.get(LIST))
    assert "The next manage.py once run or server start runs it." in shown


def test_list_can_be_kept_to_one_state(using: str, staff: Client, declared: list[Routine]) -> None:
    declared += in_every_state(using, 1)
    response = staff.get(LIST, {"state": "held"})
    assert [row.status.name for row in response.context["rows"]] == ["shop.held1", "shop.mute1"]
    assert "All 8 Failed 1 Held 2 Pending 2 Completed 2 Unknown 1" in text(response)


def test_number_of_queries_does_not_grow_with_that_of_routines(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    def ask() -> int:
        with CaptureQueriesContext(connections[using]) as queries:
            assert len(staff.get(LIST).context["rows"]) >= len(declared)
        return len(queries)

    declared += in_every_state(using, 1)
    ask()  # what is cached from the first one on
    one = ask()
    for number in range(2, 10):
        declared += in_every_state(using, number)
    assert len(declared) > 50
    assert ask() == one
    with CaptureQueriesContext(connections[using]) as queries:
        page(staff, "shop.bad1", using)
    assert len(queries) <= one + 2  # attempts, and wishes


def test_queries_are_as_many_for_two_hundred_routines_with_a_long_history(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    def ask() -> int:
        with CaptureQueriesContext(connections[using]) as queries:
            assert staff.get(LIST).status_code == 200
        return len(queries)

    declared += in_every_state(using, 1)
    ask()  # what is cached from the first one on
    one = ask()
    declared += [seed(using, f"shop.many{number}") for number in range(200)]
    same = {"key": "0" * 32, "state": "failed", "trigger": "test", "pid": 1, "version": 1}
    ended = {"started_at": Now(), "finished_at": Now()}
    Attempt.objects.using(using).bulk_create(
        Attempt(routine=f"shop.many{number}", number=attempt + 1, **same, **ended)
        for number in range(200)
        for attempt in range(50)
    )
    assert ask() == one
    assert staff.get(LIST).content.decode().count('class="once-error"') < 10


def test_list_is_searched_by_name_app_and_state(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    def names(**query: str) -> list[str]:
        return [row.status.name for row in staff.get(LIST, query).context["rows"]]

    declared += [failing(using), seed(using, "shop.seed"), seed(using, "bank.Seed")]
    run(declared[0])
    assert names() == ["shop.bad", "shop.seed", "bank.Seed"]
    assert names(q=" seed ") == ["shop.seed", "bank.Seed"]
    assert names(app="bank") == ["bank.Seed"]
    assert names(q="seed", app="shop") == ["shop.seed"]
    assert names(state="failed", app="bank") == []
    shown = staff.get(LIST, {"q": "seed", "state": "failed"})
    assert "No routine is like that." in text(shown)
    assert 'href="?q=seed&amp;state=pending"' in shown.content.decode()
    assert "All 2 Pending 2" in text(shown)


def test_app_of_a_routine_is_that_of_its_function(staff: Client, declared: list[Routine]) -> None:
    declared += [Routine(function=effects_of_shop, name="elsewhere.seed"), seed("default", "a.b")]
    effects_of_shop.__module__ = "tests.shop.routines"
    rows = staff.get(LIST).context["rows"]
    assert {row.status.name: row.app for row in rows} == {"elsewhere.seed": "shop", "a.b": "a"}


def effects_of_shop() -> None: ...


def test_list_of_many_routines_has_pages(staff: Client, declared: list[Routine]) -> None:
    declared += [seed("default", f"shop.n{number:03}") for number in range(201)]
    first = staff.get(LIST, {"q": "shop"})
    assert [row.status.name for row in first.context["rows"]] == [
        f"shop.n{number:03}" for number in range(PER_PAGE)
    ]
    assert "All 201 Pending 201" in text(first)
    content = first.content.decode()
    assert '<span aria-current="page">1</span>' in content
    assert content.count("?q=shop&amp;p=3") == 1
    last = staff.get(LIST, {"q": "shop", "p": "3"})
    assert [row.status.name for row in last.context["rows"]] == ["shop.n200"]
    assert 'href="?q=shop&amp;state=pending"' in last.content.decode()  # from its first page on
    chosen = decide(staff, "fake", "shop.n000", "shop.n200")  # whatever page they are on
    assert text(chosen).count(" pending Is recorded as done.") == 2


def test_part_of_a_page_is_read_again_and_takes_no_message_away(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared.append(failing(using))
    run(declared[0])
    address = f"{LIST}{quote(f'{using}:shop.bad')}/change/"
    ids = {"action": "reset", "_selected_action": [f"{using}:shop.bad"]}
    staff.post(LIST, {**ids, "post": "yes", "seen": ["failed"], "reason": "x"})
    for each in (LIST, address):
        part = staff.get(each, headers={"X-Requested-With": "XMLHttpRequest"}).content.decode()
        assert part.strip().startswith('<div id="once-live" data-seconds="10">')
        assert "<body" not in part
    assert "“shop.bad” is pending again." in text(staff.get(LIST))


def test_page_is_read_again_as_long_as_something_runs_or_waits(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    def shown() -> int:
        seconds: int = staff.get(LIST).context["seconds"]
        return seconds

    warm = Routine(function=lambda: None, name="shop.warm", scope="process")
    declared += [warm, seed(using), failing(using)]
    assert shown() == 10
    with elsewhere(declared[1]):
        assert shown() == 3
    run(*declared[1:])
    assert shown() == 10  # servers try the failed one again
    with override_settings(ONCE_RETRY_DELAY=0):
        assert shown() == 0


def test_list_leads_to_the_whole_error(using: str, staff: Client, declared: list[Routine]) -> None:
    declared.append(failing(using))
    run(declared[0])
    address = f"{LIST}{quote(f'{using}:shop.bad')}/change/"
    assert f'href="{address}#traceback"' in staff.get(LIST).content.decode()
    assert '<details id="traceback" open>' in staff.get(address).content.decode()


def test_list_shows_how_far_a_batched_routine_is(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    routine = seed(
        using, "shop.fill", function=lambda batch: None, over=lambda: [1, 2], batch_size=1
    )
    declared.append(routine)
    with elsewhere(routine):
        attempt = last(using)
        recorder.resume(attempt, history.progress(attempt))
        Attempt.objects.using(using).update(cursor="x", processed=1500, total=2000)
        content = staff.get(LIST).content.decode()
    bar = 'max="2000" value="1500" aria-label="Progress of shop.fill"'
    assert f'<progress class="once-progress" {bar}></progress>' in content
    assert "1,500 of 2,000 (75%)" in content


def test_list_without_routines_says_where_they_go(staff: Client) -> None:
    assert "No routines. Declare them in the routines.py of an app." in text(staff.get(LIST))


def test_list_survives_a_database_that_is_out_of_reach(
    staff: Client, declared: list[Routine]
) -> None:
    declared += [seed("default", "shop.here"), seed("sqlite", "shop.there")]
    here = connections["sqlite"]
    lost = here.copy()
    lost.settings_dict["NAME"] = "/nowhere/at.all"
    connections["sqlite"] = lost
    try:
        shown = text(staff.get(LIST))
        address = f"{LIST}{quote('sqlite:shop.there')}/change/"
        led_back = text(staff.get(address, follow=True))
    finally:
        connections["sqlite"] = here
    problem = "Database “sqlite” cannot be read: OperationalError: unable to open database file."
    assert f"{problem} Left out: shop.there." in shown
    assert "shop.here pending v1 atomic" in shown
    assert "shop.there pending" not in shown
    assert problem in led_back


def test_routine_whose_file_is_missing_hides_no_other(
    staff: Client, declared: list[Routine]
) -> None:
    lost = Routine(function=lambda: None, name="shop.lost", scope=content("nowhere/*.csv"))
    declared += [seed("default", "shop.here"), lost]
    shown = text(staff.get(LIST))
    assert "shop.here pending v1 atomic" in shown
    assert "no file matches 'nowhere/*.csv'" in shown
    assert "Left out: shop.lost." in shown


class NotInDefault:
    """Keeps the record out of the default database."""

    def allow_migrate(self, using: str, app_label: str, **hints: Any) -> bool | None:
        return using != "default" if app_label == "once" else None


@override_settings(DATABASE_ROUTERS=["tests.behaviour.test_admin.NotInDefault"])
def test_attempts_are_those_of_the_only_database_that_has_any(
    staff: Client, declared: list[Routine]
) -> None:
    declared.append(seed("sqlite"))
    run(declared[0])
    assert "shop.seed" in text(staff.get("/admin/once/attempt/"))


def test_pages_survive_tables_that_are_missing(staff: Client, declared: list[Routine]) -> None:
    declared += [seed("sqlite")]
    rows("sqlite", "ALTER TABLE once_attempt RENAME TO elsewhere")
    try:
        assert "though their migration is recorded. Restore them, or" in text(staff.get(LIST))
        assert "The tables of once are missing" in page(staff, "shop.seed", "sqlite")
        lost = staff.get("/admin/once/attempt/?database=sqlite", follow=True)
        assert "no such table: once_attempt" in lost.content.decode()
        lost = staff.get("/admin/once/attempt/1/change/?database=sqlite", follow=True)
        assert "no such table: once_attempt" in lost.content.decode()
    finally:
        rows("sqlite", "ALTER TABLE elsewhere RENAME TO once_attempt")


# The page of a routine, and the attempts


def test_page_of_a_routine_shows_its_history(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared.append(failing(using))
    run(declared[0])
    decide(staff, "reset", "shop.bad", using=using, seen="failed", reason="fixed the file")
    shown = page(staff, "shop.bad", using)
    key = last(using).key
    own = f"Idempotency key {key}"
    assert re.search(rf"2 reset 1 ada .* ada: fixed the file {own}", shown)
    first = "LookupError: no such currency Traceback Traceback (most recent call last):"
    assert re.search(rf"1 failed 1 test .* {re.escape(first)} .* {own}", shown)
    assert "raise LookupError" in shown


def test_page_of_a_routine_shows_its_failed_items(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    def body(batch: list[int]) -> None:
        if 2 in batch:
            raise LookupError("no item 2")

    routine = seed(using, "shop.fill", function=body, over=lambda: [1, 2, 3], max_errors=1)
    declared.append(routine)
    run(routine)
    said = page(staff, "shop.fill", using)
    assert "Failed items1 " in said
    assert "1 item failed: manage.py once items shop.fill lists what to fix." in said
    assert re.search(
        r"Item Attempt Failed Error 2 1 \w+\.? \d+, 20\d\d, .*? LookupError: no item 2", said
    )
    run(routine, trigger="reset", even_done=True)
    assert "Failed items" not in page(staff, "shop.fill", using)


def test_page_of_a_routine_shows_what_its_code_says_and_the_process_that_runs_it(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    def body(batch: list[int]) -> None:
        """Fill it."""

    options: dict[str, Any] = {"function": body, "over": lambda: [1], "rest": 0.5}
    declared += [
        seed(using, "shop.first"),
        seed(using, "shop.fill", after=["shop.first"], **options),
    ]
    with elsewhere(declared[1]):
        Attempt.objects.using(using).update(started_at=F("started_at") - timedelta(seconds=600))
        said = page(staff, "shop.fill", using)
    assert re.search(r" Runs on \S+ \(pid \d+\) for 10 min Description Fill it\. ", said)
    assert f"Source {__name__}, line {body.__code__.co_firstlineno} After shop.first " in said
    assert "Pace batch_size=1000 (in the code), rest=0.5 (in the code)" in said


@override_settings(LANGUAGE_CODE="de", TIME_ZONE="Europe/Berlin")
def test_times_are_in_the_zone_and_the_language_of_the_reader(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    run(declared[0])
    Attempt.objects.using(using).update(started_at=datetime(2026, 5, 9, 12, 0, 1, tzinfo=UTC))
    moment = "9. Mai 2026, 14:00:01 CEST"
    assert moment in text(staff.get(LIST))
    assert moment in page(staff, "shop.seed", using)
    [attempt] = Attempt.objects.using(using).all()
    address = f"/admin/once/attempt/{attempt.pk}/change/?database={using}"
    assert moment in text(staff.get(address))


def test_page_of_a_routine_in_memory_says_so(staff: Client, declared: list[Routine]) -> None:
    declared.append(Routine(function=lambda: None, name="shop.warm", scope="process"))
    assert "once in each process" in page(staff, "shop.warm", None)


def test_page_of_a_long_history_shows_the_last_of_it(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    for _ in range(51):
        recorder.close(begin(declared[0]), State.FAILED)
    assert "The last 50 are shown. All attempts" in page(staff, "shop.seed", using)
    query = {"routine": "shop.seed", "database": using}
    assert "51 attempts" in text(staff.get("/admin/once/attempt/", query))


@pytest.mark.parametrize("name", ["default:shop.gone", "nowhere:shop.seed", "shop.seed", ":"])
def test_page_of_what_does_not_exist_leads_back(name: str, staff: Client) -> None:
    response = staff.get(f"{LIST}{quote(name)}/change/", follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    assert "There is no routine" in response.content.decode()


def test_attempts_are_listed_by_database(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared.append(failing(using))
    run(declared[0])
    [link] = set(
        re.findall(
            r'href="(/admin/once/attempt/[^"?]+/change/[^"]*)"',
            staff.get("/admin/once/attempt/", {"database": using}).content.decode(),
        )
    )
    response = staff.get(unescape(link))
    shown = text(response)
    assert "shop.bad" in text(staff.get(response.context["routine_url"]))
    assert f"Idempotency key: {last(using).key}" in shown
    error = last(using).error.strip()
    assert "LookupError: no such currency Traceback (most recent call last)" in shown
    assert error.splitlines()[-1] in response.content.decode()
    assert not response.context["adminform"].form.fields  # nothing to edit


@pytest.mark.parametrize("model", ["attempt", "routine"])
@pytest.mark.parametrize("page", ["add/", "1/delete/", "1/history/"])
def test_nobody_adds_changes_or_deletes_what_is_recorded(
    model: str, page: str, declared: list[Routine]
) -> None:
    declared.append(seed("default"))
    run(declared[0])
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    pk = last("default").pk
    response = client.post(f"/admin/once/{model}/{page.replace('1', str(pk))}", {"post": "yes"})
    # The history of an attempt is Django's own page, which changes nothing.
    is_page = (model, page) == ("attempt", "1/history/")
    assert response.status_code == 200 if is_page else response.status_code in (403, 404, 405)
    client.post(f"/admin/once/attempt/{pk}/change/", {"state": "failed"})
    assert attempts("default") == [("shop.seed", 1, "succeeded")]


def test_attempt_that_does_not_exist_leads_back(staff: Client) -> None:
    for name in ("99", "nowhere:1", "default:x", "9" * 30, "9" * 5000):
        response = staff.get(f"/admin/once/attempt/{quote(name)}/change/")
        assert response.status_code == 302


# Decisions


@pytest.mark.parametrize("codename", ["reset_routine", "fake_routine"])
def test_who_lacks_a_permission_sees_no_action_and_takes_none(
    codename: str, declared: list[Routine]
) -> None:
    declared.append(failing("default"))
    run(declared[0])
    others = [one for one in ALL if one != codename]
    action = codename.partition("_")[0]
    client = login(*others)
    assert f'value="{action}"' not in client.get(LIST).content.decode()
    address = f"{LIST}{quote('default:shop.bad')}/change/"
    assert f'value="{action}"' not in client.get(address).content.decode()
    assert decide(client, action, "shop.bad", seen="failed").status_code == 403
    assert attempts("default") == [("shop.bad", 1, "failed")]
    without_view = login("reset_routine", "fake_routine", name="eve")
    assert without_view.get(LIST).status_code == 403
    assert without_view.get(address).status_code == 403
    assert decide(without_view, action, "shop.bad", seen="failed").status_code == 403


def test_who_is_no_staff_is_led_to_the_login(declared: list[Routine]) -> None:
    assert Client().get(LIST).headers["Location"].startswith("/admin/login/")


def test_decision_needs_the_token_of_the_page(declared: list[Routine]) -> None:
    declared.append(failing("default"))
    run(declared[0])
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    assert decide(client, "reset", "shop.bad", seen="failed").status_code == 403
    assert attempts("default") == [("shop.bad", 1, "failed")]


def test_decision_by_get_does_nothing(staff: Client, declared: list[Routine]) -> None:
    declared.append(failing("default"))
    run(declared[0])
    data = {"action": "reset", "_selected_action": "default:shop.bad", "post": "yes", "reason": "x"}
    staff.get(LIST, {**data, "seen": "failed"})
    assert attempts("default") == [("shop.bad", 1, "failed")]


def test_decision_asks_for_confirmation_first(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared += in_every_state(using, 1)
    before = attempts(using)
    names = [routine.name for routine in declared] + ["shop.gone1"]
    shown = text(decide(staff, "reset", *names, using=using))
    due, _, refused = shown.partition("Left as they are")
    assert "shop.done1 v1 completed It ran. It runs again, from the start, under a new key." in due
    bad = "shop.bad1 v1 failed LookupError: no such currency It goes on where it stands"
    assert bad in due
    assert "may be done twice" in due.partition("shop.held1")[2]
    assert "shop.new1 is pending, so not done: nothing to reset." in refused
    assert "shop.gone1 is unknown: another release of the code knows more of it." in refused
    assert attempts(using) == before


def test_reset_of_what_an_applied_migration_needed_is_left_to_the_command(
    using: str, staff: Client, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared += [seed(using, "shop.done"), seed(using, "shop.free")]
    run(*declared)
    monkeypatch.setattr("once.record.gates.passed", lambda using: {"shop.done": 1})
    shown = text(decide(staff, "reset", "shop.done", "shop.free", using=using))
    due, _, refused = shown.partition("Left as they are")
    assert "shop.free" in due
    assert "shop.done" not in due
    assert "To have it run again all the same: manage.py once reset --force shop.done." in refused
    decide(staff, "reset", "shop.done", using=using, seen="completed", reason="x")
    assert attempts(using) == [("shop.done", 1, "succeeded"), ("shop.free", 1, "succeeded")]


def test_confirmation_names_the_act_and_its_consequences(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    def fill(name: str, **options: Any) -> Routine:
        return seed(using, name, function=lambda batch: None, over=lambda: [1], **options)

    declared += [fill("shop.a", role="worker"), fill("shop.b", startup=False), fill("shop.c")]
    run(*declared[:2])
    client = login(*ALL, "pause_routine", name="eve")
    shown = decide(client, "reset", "shop.a", "shop.b", using=using)
    by_server, by_hand = text(shown).split("shop.b")
    assert "Reset: have it run again These run again." in by_server
    unready = "A server that starts meanwhile is not ready until it is done. A server that is ready"
    who = "The next manage.py once run shop.a or server start with the role worker runs it."
    assert f"under a new key. {who} {unready} stays ready." in by_server
    assert "Only manage.py once run runs it, or manage.py once work." in by_hand
    assert unready not in by_hand
    assert '<input type="submit" value="Reset: have it run again">' in shown.content.decode()
    said = text(decide(client, "fake", "shop.c", using=using))
    assert "Its function is not called. Starting servers wait for it no longer." in said
    assert "No process takes it up. A server" in text(
        decide(client, "pause", "shop.c", using=using)
    )
    with elsewhere(declared[2]):
        said = text(decide(client, "pause", "shop.c", using=using))
        assert re.search(r"It stops on \S+ \(pid \d+\) after the batch in hand\.", said)
    said = text(decide(client, "set", "shop.c", using=using))
    assert "It has batch_size=1000, rest=0, as the code has it." in said


def test_pace_is_set_and_is_again_as_the_code_has_it(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using, "shop.a", function=lambda batch: None, over=lambda: [1], rest=2.0))
    client = login(*ALL, "pause_routine")
    choice: dict[str, Any] = {"using": using, "seen": "pending"}
    told = text(decide(client, "set", "shop.a", batch_size="7", **choice))
    assert "“shop.a” has batch_size=7, as soon as it runs." in told
    said = text(decide(client, "set", "shop.a", using=using))
    assert "It has batch_size=7, rest=2, as ada set it." in said
    both = {"batch_size": "8", "as_declared": "on"}
    for given in ({}, both):
        refused = text(decide(client, "set", "shop.a", **given, **choice))
        assert "Fill in values, or have all as the code has it." in refused
    decide(client, "set", "shop.a", as_declared="on", **choice)
    assert "Pace batch_size=1000 (in the code), rest=2 (in the code)" in page(
        client, "shop.a", using
    )


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001])
def test_decision_needs_a_reason(reason: str, staff: Client, declared: list[Routine]) -> None:
    declared.append(failing("default"))
    run(declared[0])
    response = decide(staff, "reset", "shop.bad", seen="failed", reason=reason)
    assert "errorlist" in response.content.decode()
    assert attempts("default") == [("shop.bad", 1, "failed")]


@pytest.mark.parametrize(
    ("act", "told"),
    [("", "No action selected."), ("delete", "No action selected."), ("reset", "No routine")],
)
def test_decision_about_nothing_says_so(act: str, told: str, staff: Client) -> None:
    assert told in decide(staff, act, "shop.gone").content.decode()


def test_reset_has_a_held_routine_tried_again(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared.append(failing(using, atomic=False, retry=False))
    run(declared[0])
    response = decide(staff, "reset", "shop.bad", using=using, seen="held", reason="paid by hand")
    assert "“shop.bad” is pending again." in text(response)
    decision = last(using)
    assert (decision.trigger, decision.user, decision.reason) == ("reset", "ada", "paid by hand")
    [row] = staff.get(LIST).context["rows"]
    assert row.status.state == "pending"
    declared[0] = seed(using, "shop.bad", atomic=False, retry=False)
    run(declared[0])
    assert effects(using) == ["shop.bad"]


def test_reset_has_a_completed_routine_run_again(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    run(declared[0])
    decide(staff, "reset", "shop.seed", using=using, seen="completed")
    run(declared[0])
    assert effects(using) == ["shop.seed", "shop.seed"]


def test_reset_of_what_was_called_by_a_key(using: str, staff: Client) -> None:
    run(seed(using, f"{CALL}prices"))
    decide(staff, "reset", f"{CALL}prices", using=using, seen="completed")
    assert not Completion.objects.using(using).filter(routine=f"{CALL}prices").exists()


def test_fake_records_without_running(using: str, staff: Client, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b")]
    response = decide(staff, "fake", "a", "b", using=using, seen="pending", reason="there already")
    assert "“a” is recorded as done. “b” is recorded as done." in text(response)
    assert effects(using) == []
    history = Attempt.objects.using(using).values_list("routine", "trigger", "user", "reason")
    assert {*history} == {(name, "fake", "ada", "there already") for name in ("a", "b")}


def test_decisions_are_in_the_log_of_the_admin(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared += [failing(using), seed(using, "shop.new")]
    run(declared[0])
    decide(staff, "reset", "shop.bad", using=using, seen="failed", reason="fixed")
    decide(staff, "fake", "shop.new", using=using, seen="pending", reason="by hand")
    entries = LogEntry.objects.order_by("pk")
    assert [(one.object_repr, one.change_message) for one in entries] == [
        ("shop.bad", "Reset: have it run again. fixed"),
        ("shop.new", "Record as done without running. by hand"),
    ]
    assert {one.user.get_username() for one in entries} == {"ada"}
    for entry in entries:
        address = entry.get_admin_url()
        assert address is not None
        assert entry.object_repr in text(staff.get(address))
    assert "shop.bad" in text(staff.get("/admin/"))


@pytest.mark.parametrize("action", ["reset", "fake"])
def test_decision_about_what_runs_now_is_refused(
    using: str, action: str, staff: Client, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    with elsewhere(declared[0]):
        shown = text(decide(staff, action, "shop.seed", using=using, seen="running"))
        assert "Left as it is: shop.seed is run now on" in shown
        assert attempts(using) == [("shop.seed", 1, "running")]
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("action", ["reset", "fake"])
def test_decision_about_what_is_begun_at_that_moment_is_refused(
    action: str, staff: Client, declared: list[Routine]
) -> None:
    declared.append(failing("default"))
    run(declared[0])
    with database("default").lock("shop.bad", 15.0) as lock:
        take(lock)
        shown = text(decide(staff, action, "shop.bad", seen="failed"))
    assert "Left as it is: shop.bad is run by" in shown
    assert attempts("default") == [("shop.bad", 1, "failed")]


def test_decision_about_what_stands_otherwise_by_now_is_refused(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    recorder.close(begin(declared[0]), State.FAILED)
    run(declared[0])  # while somebody reads what the page says
    response = decide(staff, "reset", "shop.seed", using=using, seen="failed")
    assert "shop.seed is completed by now. Look again, and decide then." in text(response)
    assert Completion.objects.using(using).filter(routine="shop.seed").exists()


def test_fake_of_what_must_not_be_is_refused(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    run(seed(using, "shop.old", version=2), seed(using, f"{CALL}prices"), seed(using, "shop.gone"))
    declared += [seed(using, "shop.old"), seed(using, "shop.done")]
    run(declared[1])
    Completion.objects.using(using).filter(routine=f"{CALL}prices").delete()
    names = ["shop.old", "shop.done", "shop.gone", f"{CALL}prices"]
    shown = text(decide(staff, "fake", *names, using=using))
    assert "shop.old is superseded: another release" in shown
    assert "shop.done is completed: nothing to record." in shown
    assert "shop.gone is unknown: another release" in shown
    assert f"{CALL}prices is a command that manage.py once call ran" in shown
    assert "Reason" not in shown


def test_decision_about_what_is_in_memory_is_refused(
    staff: Client, declared: list[Routine]
) -> None:
    declared.append(Routine(function=lambda: None, name="shop.warm", scope="process"))
    shown = text(decide(staff, "reset", "shop.warm", using=""))
    assert "shop.warm keeps no record (process scope): restart the process." in shown


def test_decision_works_where_requests_are_atomic(
    using: str, staff: Client, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    for alias in ("default", "sqlite"):
        monkeypatch.setitem(connections[alias].settings_dict, "ATOMIC_REQUESTS", True)
    declared.append(failing(using))
    run(declared[0])
    response = decide(staff, "reset", "shop.bad", using=using, seen="failed")
    assert "“shop.bad” is pending again." in text(response)


def test_decision_that_a_scope_hinders_says_why(
    staff: Client, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RELEASE", "1")
    declared.append(failing("default", scope="release"))
    run(declared[0])

    def unset(*args: Any, **options: Any) -> None:
        monkeypatch.delenv("ONCE_RELEASE")
        declared[0].check_scope()

    monkeypatch.setattr("once.status.decisions.carry_out", unset)
    response = decide(staff, "reset", "shop.bad", seen="failed")
    assert "ONCE_RELEASE is unset" in response.content.decode()


# Words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0123, "0.012s"),
        (12.34, "12.340s"),
        (59.9996, "1 min"),
        (61.0, "1 min"),
        (7199.0, "2 hours"),
        (86400.0, "24 hours"),
    ],
)
def test_length_of_time_is_as_short_as_it_may_be_said(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_command_in_a_text_is_marked_and_what_is_in_it_escaped() -> None:
    assert marked("Run `once <x>`, & wait.") == "Run <code>once &lt;x&gt;</code>, &amp; wait."


# Sites


class _Site(admin.AdminSite):
    site_header = "Operations"


_site = _Site(name="operations")
_site.register(Attempt, AttemptAdmin)
_site.register(RoutineModel, RoutineAdmin)
_bare = _Site(name="bare")
_bare.register(RoutineModel, RoutineAdmin)
urlpatterns = [path("operations/", _site.urls), path("bare/", _bare.urls)]


@override_settings(ROOT_URLCONF="tests.behaviour.test_admin")
def test_site_of_ones_own_links_to_itself(staff: Client, declared: list[Routine]) -> None:
    declared.append(failing("default"))
    run(declared[0])
    name = quote("default:shop.bad")
    for address in ("routine/", f"routine/{name}/change/", f"attempt/{last('default').pk}/change/"):
        response = staff.get(f"/operations/once/{address}")
        content = response.content.decode()
        assert "Operations" in content
        assert 'href="/operations/once/' in content
        assert 'href="/admin/' not in content


@override_settings(ROOT_URLCONF="tests.behaviour.test_admin")
def test_site_without_attempts_shows_the_history_of_a_routine(
    staff: Client, declared: list[Routine]
) -> None:
    declared.append(failing("default"))
    run(declared[0])
    name = quote("default:shop.bad")
    assert "LookupError" in text(staff.get(f"/bare/once/routine/{name}/change/"))


def test_admins_log_that_cannot_be_written_stops_nothing(
    staff: Client, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("read-only")

    declared += [failing("default", "shop.one"), failing("default", "shop.two")]
    for one in declared:
        run(one)
    monkeypatch.setattr(LogEntry, "save", refuse)
    told = text(decide(staff, "fake", "shop.one", "shop.two", seen="failed"))
    assert told.count("missing in the admin's log: OperationalError: read-only") == 2
    assert "“shop.two” is recorded as done." in told

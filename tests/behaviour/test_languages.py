"""Where the language of a person or a process counts, and where it does not."""

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client, override_settings
from django.utils.translation import override

from once import Routine, signals
from once.models import Attempt
from once.record import history, recorder
from once.record.advice import hint
from once.status.text import duration
from once.words import translated
from tests.behaviour.command import Answer
from tests.behaviour.test_admin import LIST, decide, elsewhere, in_every_state, login, page, text
from tests.support import begin, last, receiving, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

ALL = "view_routine", "view_attempt", "reset_routine", "fake_routine", "pause_routine"


@pytest.fixture
def german() -> Iterator[None]:
    """A project in German, whose commands Django calls in German, too."""
    with override_settings(LANGUAGE_CODE="de"), override("de"):
        yield


@pytest.fixture
def staff() -> Client:
    return login(*ALL)


def test_commands_speak_english_whatever_the_language_is(
    using: str, declared: list[Routine], german: None
) -> None:
    def said() -> list[str]:
        asked = (["status"], ["status", "-v2"], ["history", "shop.*"], ["status", "--json"])
        out = "".join(Answer(*each).out for each in asked)
        return re.sub(r'("elapsed_seconds": )[\d.]+', r"\1", out).splitlines()

    declared += in_every_state(using, 1)
    Answer("pause", "shop.new1", "--reason", "peak")
    in_german = said()
    with override(None):
        assert in_german == said()
    assert len(in_german) > 20


def test_list_speaks_the_language_of_the_person(
    using: str, staff: Client, declared: list[Routine], german: None
) -> None:
    declared += in_every_state(using, 1)
    shown = text(staff.get(LIST))
    for words in (
        "Routine Zustand Version, Art Letzter Versuch Dauer Versuche",
        "Alle 8 Fehlgeschlagen 1 Zu klären 2 Ausstehend 2 Abgeschlossen 2 Unbekannt 1",
        "Zu klären, wegen retry=False: Stellen Sie fest, was ihr letzter Versuch getan hat. Danach "
        "lässt manage.py once reset shop.held1 sie erneut versuchen",
        "Das nächste manage.py once run oder der nächste Serverstart übernimmt.",
        "LookupError: no such currency Der ganze Fehler",
    ):
        assert words in shown
    assert re.search(r"shop\.done1 abgeschlossen v1 atomic .* \d,\d{3} s 1", shown)


def test_page_of_a_routine_speaks_the_language_of_the_person(
    using: str, staff: Client, declared: list[Routine], german: None
) -> None:
    declared += in_every_state(using, 1)
    run = decide(staff, "reset", "shop.bad1", using=using, seen="failed", reason="Datei behoben")
    assert "„shop.bad1“ ist wieder ausstehend." in text(run)
    shown = page(staff, "shop.bad1", using)
    assert "Zustandausstehend" in shown
    assert re.search(r"2 zurückgesetzt 1 ada .* ada: Datei behoben Idempotenzschlüssel", shown)
    assert re.search(r"1 fehlgeschlagen 1 Test .* LookupError: no such currency Traceback", shown)


def test_confirmation_speaks_the_language_of_the_person(
    using: str, staff: Client, declared: list[Routine], german: None
) -> None:
    declared += in_every_state(using, 1)
    shown = text(decide(staff, "reset", "shop.done1", "shop.bad1", using=using))
    assert "Zurücksetzen: erneut ausführen lassen" in shown
    assert "Sie ist gelaufen. Sie läuft erneut, von vorn, unter einem neuen Schlüssel." in shown
    assert "Das nächste manage.py once run oder der nächste Serverstart führt sie aus." in shown
    assert "Grund: Steht danach mit Ihrem Namen in der Geschichte. Nein, bitte abbrechen" in shown


def test_attempts_speak_the_language_of_the_person(
    using: str, staff: Client, declared: list[Routine], german: None
) -> None:
    declared += in_every_state(using, 1)
    shown = text(staff.get("/admin/once/attempt/", {"database": using}))
    assert "Routine Nummer Zustand Auslöser Begonnen" in shown
    assert "shop.held11fehlgeschlagenTest" in shown
    attempt = Attempt.objects.using(using).get(routine="shop.bad1")
    address = f"/admin/once/attempt/{attempt.pk}/change/"
    shown = text(staff.get(address, {"database": using}))
    assert "Idempotenzschlüssel:" in shown
    assert "Zustand: fehlgeschlagen Auslöser: Test Ausführung Begonnen:" in shown
    assert "Routinen" in text(staff.get("/admin/"))


def test_what_a_person_decides_is_recorded_and_logged_in_english(
    using: str,
    staff: Client,
    declared: list[Routine],
    german: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    declared.append(seed(using, "shop.died"))
    begin(declared[0])
    told = []

    def receive(**arguments: Any) -> None:
        told.append(hint("shop.died"))

    with caplog.at_level(logging.INFO, "once"), receiving(signals.attempt_finished, receive):
        decide(staff, "fake", "shop.died", using=using, seen="pending", reason="von Hand")
    [entry] = LogEntry.objects.all()
    assert entry.change_message == "Record as done without running. von Hand"
    assert (last(using).trigger, last(using).reason) == ("fake", "von Hand")
    assert told[0].startswith("Held, since retry=False")
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert "shop.died" in logged
    assert not re.search("vermerkt|Versuch|erledigt", logged)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0123, "0,012\xa0s"),
        (61.0, "1\xa0min"),
        (7200.0, "2\xa0Stunden"),
        (36e6, "10.000\xa0Stunden"),
    ],
)
def test_length_of_time_on_a_page_is_said_as_its_reader_does(
    seconds: float, said: str, german: None
) -> None:
    with translated():
        assert duration(seconds) == said
    assert duration(61.0) == "1 min"


def test_progress_on_a_page_is_written_as_its_reader_does(
    using: str, staff: Client, declared: list[Routine], german: None
) -> None:
    options: dict[str, Any] = {"function": lambda batch: None, "over": lambda: [1]}
    declared.append(seed(using, "shop.fill", **options))
    with elsewhere(declared[0]):
        attempt = last(using)
        recorder.resume(attempt, history.progress(attempt))
        Attempt.objects.using(using).update(cursor="x", processed=1500, total=2000)
        assert "1.500 von 2.000 (75 %)" in text(staff.get(LIST))
        assert "1,500 of 2,000 (75%)" in Answer("status").out

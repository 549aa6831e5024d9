"""Settings: defaults, sources and refusals."""

import html
import os
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from once import conf
from tests.project import ROOT

DEFAULTS: dict[str, object] = {
    "ONCE_STARTUP": "run",
    "ONCE_STARTUP_TIMEOUT": 25.0,
    "ONCE_STARTUP_FAILURE": "raise",
    "ONCE_STARTUP_COMMANDS": ("runserver",),
    "ONCE_RELEASE": "",
    "ONCE_ROLE": "",
    "ONCE_LIVENESS_TIMEOUT": 15.0,
    "ONCE_RETRY_DELAY": 30.0,
    "ONCE_SCRUB": None,
    "ONCE_LOCK_MIGRATE": False,
    "ONCE_MIGRATE_LOCK_TIMEOUT": 5.0,
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in conf.NAMES:
        monkeypatch.delenv(name, raising=False)


def _values() -> dict[str, object]:
    return {name: read() for name, read in conf.NAMES.items()}


def test_defaults() -> None:
    assert _values() == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ONCE_STARTUP", "off", "off"),
        ("ONCE_STARTUP", "background", "background"),
        ("ONCE_STARTUP_TIMEOUT", 3, 3.0),
        ("ONCE_STARTUP_TIMEOUT", 0, 0.0),
        ("ONCE_STARTUP_FAILURE", "log", "log"),
        ("ONCE_STARTUP_COMMANDS", ["serve", "work"], ("serve", "work")),
        ("ONCE_STARTUP_COMMANDS", (), ()),
        ("ONCE_RELEASE", "2024.1", "2024.1"),
        ("ONCE_ROLE", "nightly-import_2.1", "nightly-import_2.1"),
        ("ONCE_LIVENESS_TIMEOUT", 1, 1.0),
        ("ONCE_RETRY_DELAY", 0, 0.0),
        ("ONCE_RETRY_DELAY", 7200, 7200.0),
        ("ONCE_LIVENESS_TIMEOUT", 86_400, 86_400.0),
        ("ONCE_SCRUB", "html.escape", html.escape),
        ("ONCE_LOCK_MIGRATE", True, True),
        ("ONCE_MIGRATE_LOCK_TIMEOUT", 0, 0.0),
    ],
)
def test_setting_is_read(name: str, value: object, expected: object) -> None:
    with override_settings(**{name: value}):
        assert _values() == {**DEFAULTS, name: expected}
    assert _values() == DEFAULTS


@pytest.mark.parametrize(
    ("name", "setting", "value", "expected"),
    [
        ("ONCE_STARTUP", "run", "off", "off"),
        ("ONCE_STARTUP", "run", "background", "background"),
        ("ONCE_STARTUP_TIMEOUT", 3, "4.5", 4.5),
        ("ONCE_STARTUP_FAILURE", "raise", "log", "log"),
        ("ONCE_STARTUP_COMMANDS", ["serve"], "work", ("work",)),
        ("ONCE_STARTUP_COMMANDS", ["serve"], "work,celery_beat", ("work", "celery_beat")),
        ("ONCE_STARTUP_COMMANDS", ["serve"], "work, celery_beat", ("work", "celery_beat")),
        ("ONCE_STARTUP_COMMANDS", ["serve"], "", ()),
        ("ONCE_RELEASE", "one", "two", "two"),
        ("ONCE_RELEASE", "one", "", ""),
        # MySQL takes no notice of spaces at the end, and files end in a new line.
        ("ONCE_RELEASE", "one", " v1 é \n", "v1 é"),
        ("ONCE_RELEASE", "one", "$Format:%h$", "$Format:%h$"),
        ("ONCE_ROLE", "one", "", ""),
        ("ONCE_LIVENESS_TIMEOUT", 20, "2", 2.0),
        ("ONCE_RETRY_DELAY", 20, "0.5", 0.5),
        ("ONCE_SCRUB", "html.gone", "html.escape", html.escape),
        ("ONCE_RETRY_DELAY", 20, " 1e3\n", 1000.0),
        ("ONCE_LOCK_MIGRATE", False, "True", True),
        ("ONCE_LOCK_MIGRATE", True, "false", False),
        ("ONCE_MIGRATE_LOCK_TIMEOUT", 5, "0.5", 0.5),
        # An invalid setting that nobody reads is no problem.
        ("ONCE_STARTUP", "on", "off", "off"),
    ],
)
def test_environment_beats_the_setting(
    name: str, setting: object, value: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with override_settings(**{name: setting}):
        assert conf.NAMES[name]() == expected


SECONDS = [-1, "3", "", True, None, float("nan"), float("inf"), 86_401, 10**400]


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("ONCE_STARTUP", "on", "'run' or 'background' or 'off'"),
        ("ONCE_STARTUP", "", "'run' or 'background' or 'off'"),
        ("ONCE_STARTUP", False, "'run' or 'background' or 'off'"),
        ("ONCE_STARTUP_FAILURE", "ignore", "'raise' or 'log'"),
        *(("ONCE_STARTUP_TIMEOUT", value, "seconds from 0 to 86400") for value in SECONDS),
        *(("ONCE_LIVENESS_TIMEOUT", value, "seconds from 1 to 86400") for value in SECONDS),
        *(("ONCE_RETRY_DELAY", value, "seconds from 0 to 86400") for value in SECONDS),
        ("ONCE_LIVENESS_TIMEOUT", 0.9, "seconds from 1 to 86400"),
        ("ONCE_STARTUP_COMMANDS", "runserver", "a list of names"),
        ("ONCE_STARTUP_COMMANDS", None, "a list of names"),
        *(
            ("ONCE_ROLE", value, "a word of at most 50 letters")
            for value in ("two words", "ä", "x\n", "x" * 51, None, 1)
        ),
        ("ONCE_LOCK_MIGRATE", "yes", "true or false"),
        ("ONCE_MIGRATE_LOCK_TIMEOUT", "off", "seconds from 0 to 86400"),
        ("ONCE_LOCK_MIGRATE", None, "true or false"),
        ("ONCE_SCRUB", "html.gone", "the dotted path of a function"),
        ("ONCE_SCRUB", "html", "the dotted path of a function"),
        ("ONCE_SCRUB", html.escape, "the dotted path of a function"),
        ("ONCE_RELEASE", 3, "a string of at most 200 printable characters"),
        ("ONCE_RELEASE", None, "a string of at most 200 printable characters"),
        ("ONCE_RELEASE", "x" * 201, "a string of at most 200 printable characters"),
        ("ONCE_RELEASE", "a\0", "a string of at most 200 printable characters"),
        ("ONCE_RELEASE", "a\nb", "a string of at most 200 printable characters"),
    ],
)
def test_invalid_setting_is_refused_by_name(name: str, value: Any, wanted: str) -> None:
    with override_settings(**{name: value}), pytest.raises(ImproperlyConfigured) as refusal:
        _values()
    message = str(refusal.value)
    assert message.startswith(f"The setting {name} must be ")
    assert wanted in message
    assert message.endswith(f", not {value!r}.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ONCE_STARTUP", "on"),
        ("ONCE_STARTUP", ""),
        ("ONCE_STARTUP", "$on"),
        ("ONCE_STARTUP_FAILURE", "RAISE"),
        ("ONCE_STARTUP_TIMEOUT", "soon"),
        ("ONCE_STARTUP_TIMEOUT", ""),
        ("ONCE_STARTUP_FAILURE", ""),
        ("ONCE_RETRY_DELAY", "later"),
        ("ONCE_SCRUB", "html.gone"),
        ("ONCE_LOCK_MIGRATE", "1"),
        ("ONCE_LOCK_MIGRATE", ""),
        ("ONCE_MIGRATE_LOCK_TIMEOUT", "5s"),
        ("ONCE_RETRY_DELAY", ""),
        ("ONCE_LIVENESS_TIMEOUT", "15s"),
        ("ONCE_LIVENESS_TIMEOUT", ""),
        ("ONCE_RELEASE", "x" * 201),
        ("ONCE_ROLE", "two words"),
        ("ONCE_RELEASE", os.fsdecode(b"a\xff")),
    ],
)
def test_invalid_environment_variable_is_refused_by_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with (
        override_settings(**{name: DEFAULTS[name]}),
        pytest.raises(ImproperlyConfigured) as refusal,
    ):
        _values()
    message = str(refusal.value)
    assert message.startswith(f"The environment variable {name} must be ")
    assert message.endswith(f", not {value!r}.")


@pytest.mark.parametrize(
    "name", ["ONCE_STARTUP_TIMEOUT", "ONCE_LIVENESS_TIMEOUT", "ONCE_RETRY_DELAY"]
)
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e300"])
def test_impossible_seconds_in_the_environment_are_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured, match=f"environment variable {name} must be a num"):
        conf.NAMES[name]()


def test_each_setting_is_tried_from_either_source_and_refused_from_either() -> None:
    tried = [
        test_setting_is_read,
        test_environment_beats_the_setting,
        test_invalid_setting_is_refused_by_name,
        test_invalid_environment_variable_is_refused_by_name,
    ]
    for test in tried:
        (mark,) = test.pytestmark
        missing = {*conf.NAMES} - {case[0] for case in mark.args[1]}
        # Any text is a list of names.
        assert missing <= {"ONCE_STARTUP_COMMANDS"}, test
    for name in conf.NAMES:
        assert f"| `{name}` |" in (ROOT / "docs" / "reference" / "settings.md").read_text()


def test_role_by_default_gives_way_to_the_setting_even_an_empty_one() -> None:
    assert conf.role(conf.WORKER) == "worker"
    for role in ("web", ""):
        with override_settings(ONCE_ROLE=role):
            assert conf.role(conf.WORKER) == role

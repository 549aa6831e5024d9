"""Settings: defaults, sources and refusals."""

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from once import conf

DEFAULTS: dict[str, object] = {
    "ONCE_STARTUP": "run",
    "ONCE_STARTUP_TIMEOUT": 25.0,
    "ONCE_STARTUP_FAILURE": "raise",
    "ONCE_STARTUP_COMMANDS": ("runserver",),
    "ONCE_RELEASE": "",
    "ONCE_LIVENESS_TIMEOUT": 15.0,
    "ONCE_RETRY_DELAY": 30.0,
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
        ("ONCE_LIVENESS_TIMEOUT", 1, 1.0),
        ("ONCE_RETRY_DELAY", 0, 0.0),
        ("ONCE_RETRY_DELAY", 7200, 7200.0),
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
        ("ONCE_RELEASE", "one", "$Format:%h$", "$Format:%h$"),
        ("ONCE_LIVENESS_TIMEOUT", 20, "2", 2.0),
        ("ONCE_RETRY_DELAY", 20, "0.5", 0.5),
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


SECONDS = [-1, "3", True, None, float("nan"), float("inf")]


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("ONCE_STARTUP", "on", "'run' or 'background' or 'off'"),
        ("ONCE_STARTUP", "", "'run' or 'background' or 'off'"),
        ("ONCE_STARTUP", False, "'run' or 'background' or 'off'"),
        ("ONCE_STARTUP_FAILURE", "ignore", "'raise' or 'log'"),
        *(("ONCE_STARTUP_TIMEOUT", value, "seconds, at least 0") for value in SECONDS),
        *(("ONCE_LIVENESS_TIMEOUT", value, "seconds, at least 1") for value in SECONDS),
        *(("ONCE_RETRY_DELAY", value, "seconds, at least 0") for value in SECONDS),
        ("ONCE_LIVENESS_TIMEOUT", 0.9, "seconds, at least 1"),
        ("ONCE_STARTUP_COMMANDS", "runserver", "a list of names"),
        ("ONCE_STARTUP_COMMANDS", None, "a list of names"),
        ("ONCE_RELEASE", 3, "a string of at most 200 characters"),
        ("ONCE_RELEASE", None, "a string of at most 200 characters"),
        ("ONCE_RELEASE", "x" * 201, "a string of at most 200 characters"),
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
        ("ONCE_RETRY_DELAY", "later"),
        ("ONCE_RELEASE", "x" * 201),
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


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
def test_impossible_seconds_in_the_environment_are_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_LIVENESS_TIMEOUT", value)
    with pytest.raises(ImproperlyConfigured, match="environment variable ONCE_LIVENESS_TIMEOUT"):
        conf.liveness_timeout()

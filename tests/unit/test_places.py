"""Where tests hold a process is in the code: a name that was changed is told before slow tests."""

import re
from pkgutil import resolve_name

import pytest

from tests.project import ROOT

_PLACE = re.compile(r"\b(?:once|django)(?:\.\w+)+:\w+(?:\.\w+)*(?==)")
PLACES = sorted(
    {place for file in (ROOT / "tests").rglob("*.py") for place in _PLACE.findall(file.read_text())}
)


def test_places_are_found() -> None:
    assert len(PLACES) > 10


@pytest.mark.parametrize("place", PLACES)
def test_place_is_there(place: str) -> None:
    assert callable(resolve_name(place))

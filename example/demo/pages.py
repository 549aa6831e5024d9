"""The pages of the servers: asks for them, and knows what the answers must be."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

import pycountry

__all__ = ["READY", "VISIT", "Address", "Page", "ask", "probe", "reads"]

Address = tuple[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """A request, and the answer that it must get."""

    method: str = "GET"
    path: str
    status: int = 200
    answer: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


READY = Page(path="/ready/", answer={"done": True})
#: Each one that is answered leaves a row.
VISIT = Page(method="POST", path="/countries/ch/visits/", status=201, answer={"country": "CH"})


def reads() -> Sequence[Page]:
    """Pages that change nothing; the answers are the same in every release that serves."""
    place = {"name": "Upper Oregon", "subdivision": "US-OR"}
    return (
        READY,
        *(Page(path=f"/countries/{code}/", answer=_country(code)) for code in ("de", "USA", "756")),
        Page(path="/places/?name=UPPER%20Oregon", answer={"places": [place]}),
    )


def ask(address: Address, page: Page) -> str:
    """Ask a server for a page; what was wrong with the answer, or nothing."""
    try:
        status, body = _request(address, page, timeout=30)
        if status == page.status and json.loads(body) == page.answer:
            return ""
    except (OSError, HTTPException, ValueError) as error:
        return f"{page}: {type(error).__name__}: {error}"
    return f"{page}: {status} {body[:200]!r}"


def probe(address: Address) -> int:
    """The status with which a server answers whether it is ready; 0 where it does not."""
    try:
        return _request(address, READY, timeout=2)[0]
    except (OSError, HTTPException):
        return 0


def _request(address: Address, page: Page, timeout: float) -> tuple[int, bytes]:
    with closing(HTTPConnection(*address, timeout=timeout)) as connection:
        connection.request(page.method, page.path)
        response = connection.getresponse()
        return response.status, response.read()


def _country(code: str) -> dict[str, Any]:
    country = pycountry.countries.lookup(code)
    own = sorted(
        (one for one in pycountry.currencies if one.alpha_3.startswith(country.alpha_2)),
        key=lambda one: one.alpha_3,
    )
    parts = sorted(
        (one for one in pycountry.subdivisions if one.country_code == country.alpha_2),
        key=lambda one: one.code,
    )
    return {
        "alpha_2": country.alpha_2,
        "name": country.name,
        "currencies": [{"code": one.alpha_3, "name": one.name} for one in own],
        "subdivisions": [{"code": one.code, "name": one.name, "kind": one.type} for one in parts],
    }

"""Asks the servers for their pages, and knows what the answers must be."""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from itertools import product
from typing import Any

import pycountry

__all__ = ["ask"]

Address = tuple[str, int]


def ask(addresses: Sequence[Address], times: int) -> tuple[int, list[str]]:
    """Ask every server for every page that often: how many requests, and what was wrong."""
    right: dict[str, Any] = {"/ready/": {"done": True}}
    for code in ("de", "USA", "756"):  # one of each kind
        right[f"/countries/{code}/"] = _country(code)
    asked = [request for request in product(addresses, right) for _ in range(times)]
    with ThreadPoolExecutor(times) as pool:
        answers = list(pool.map(lambda request: _get(*request), asked))
    wrong = Counter(
        f"{path} of {host}:{port} answered {str(answer)[:200]}"
        for ((host, port), path), answer in zip(asked, answers, strict=True)
        if answer != right[path]
    )
    return len(asked), [f"{what} ({count} times)" for what, count in wrong.items()]


def _get(address: Address, path: str) -> Any:
    try:
        with closing(HTTPConnection(*address, timeout=30)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        return json.loads(body) if response.status == 200 else f"{response.status} {body!r}"
    except (OSError, HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"


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

"""What must be there in the end, known without looking into the database."""

import math
import unicodedata

import pycountry

__all__ = ["ANNOUNCEMENT", "BATCHES", "DATA", "EFFECTS", "PLACES", "folded"]

_COUNTRIES = {country.alpha_2 for country in pycountry.countries}

PLACES = 4 * len(pycountry.subdivisions)
#: Of geography.fold_names: a thousand places in each.
BATCHES = math.ceil(PLACES / 1000)

#: How many rows, by what they are and where.
DATA = {
    "countries": ("geography_country", len(_COUNTRIES)),
    "currencies": ("geography_currency", len(pycountry.currencies)),
    "issuers": (
        "geography_currency WHERE issuer_id = substr(code, 1, 2)",
        sum(currency.alpha_3[:2] in _COUNTRIES for currency in pycountry.currencies),
    ),
    "subdivisions": ("geography_subdivision", len(pycountry.subdivisions)),
}

#: How often the body of each routine must commit, by the release that it is part of.
EFFECTS: dict[int, dict[str, int]] = {
    1: {
        "geography.load_countries": 1,
        "geography.load_currencies": 1,
        "geography.link_issuers": 1,
        "geography.load_subdivisions": 1,
        "geography.load_places": 1,
    },
    2: {"geography.fold_names": BATCHES},
    3: {"geography.fold_names": BATCHES},
}

#: Its effect is not in the database.
ANNOUNCEMENT = "geography.announce_release"


def folded(name: str) -> str:
    """What release 3 finds a place by."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))

"""What must have run before this project serves. ``once`` finds this module by its name."""

import logging

import environ
import pycountry
from django.db.models import OuterRef, Subquery
from django.db.models.functions import Left

from once import routine

from . import codes
from .models import Country, Currency, Effect, Subdivision

logger = logging.getLogger(__name__)


@routine
def load_countries() -> None:
    """ISO 3166-1."""
    Country.objects.bulk_create(
        Country(
            alpha_2=country.alpha_2,
            alpha_3=country.alpha_3,
            numeric=country.numeric,
            name=country.name,
        )
        for country in pycountry.countries
    )
    Effect.leave("geography.load_countries")


@routine
def load_currencies() -> None:
    """ISO 4217."""
    Currency.objects.bulk_create(
        Currency(code=currency.alpha_3, numeric=currency.numeric, name=currency.name)
        for currency in pycountry.currencies
    )
    Effect.leave("geography.load_currencies")


@routine(after=[load_countries, load_currencies])
def link_issuers() -> None:
    """ISO 4217: a national currency's code begins with the alpha-2 code of its country."""
    country = Country.objects.filter(alpha_2=Left(OuterRef("code"), 2))
    Currency.objects.update(issuer=Subquery(country.values("alpha_2")))
    Effect.leave("geography.link_issuers")


@routine(scope="process")
def index_codes() -> None:
    """In memory, so once in each process."""
    for country in pycountry.countries:
        for code in (country.alpha_2, country.alpha_3, country.numeric):
            codes.alpha_2[code] = country.alpha_2
    logger.info("event=indexed routine=geography.index_codes codes=%d", len(codes.alpha_2))


# Two releases in one checkout. In yours, the next release simply has one routine more.
if environ.Env().int("EXAMPLE_RELEASE", default=2) >= 2:

    @routine(after=[load_countries])
    def load_subdivisions() -> None:
        """ISO 3166-2: states, provinces, districts."""
        Subdivision.objects.bulk_create(
            Subdivision(
                code=subdivision.code,
                country_id=subdivision.country_code,
                name=subdivision.name,
                kind=subdivision.type,
            )
            for subdivision in pycountry.subdivisions
        )
        Effect.leave("geography.load_subdivisions")

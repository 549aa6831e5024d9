"""What must have run before this project serves. ``once`` finds this module by its name."""

import logging

import pycountry
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Left

from once import Run, routine

from . import codes, conf, partner
from .models import Country, Currency, Effect, Place, Subdivision
from .names import searchable

logger = logging.getLogger(__name__)

PARTS = ("Upper", "Lower", "Old", "New")


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


@routine(after=[load_subdivisions])
def load_places() -> None:
    """Invented places, four in each subdivision: more than twenty thousand."""
    Place.objects.bulk_create(
        (
            Place(subdivision_id=subdivision.code, name=f"{part} {subdivision.name}")
            for subdivision in pycountry.subdivisions
            for part in PARTS
        ),
        batch_size=10000,
    )
    Effect.leave("geography.load_places")


@routine(scope="process")
def index_codes() -> None:
    """In memory, so once in each process."""
    for country in pycountry.countries:
        for code in (country.alpha_2, country.alpha_3, country.numeric):
            codes.alpha_2[code] = country.alpha_2
    logger.info("event=indexed routine=geography.index_codes codes=%d", len(codes.alpha_2))


# Release 2 brought the search. Release 3 finds "Zürich" by "zurich" too, so that every name is to
# be folded once more: another version.
if conf.RELEASE >= 2:

    @routine(
        version=1 if conf.RELEASE == 2 else 2,
        after=[load_places],
        over=lambda: Place.objects.all(),
        batch_size=1000,
        rest=0.02,
    )
    def fold_names(places: QuerySet[Place]) -> None:
        """Write to each place what it is searched by."""
        for place in places:
            place.search_name = searchable(place.name)
            place.changed += 1
        # Since nobody deletes places this only updates, and many times faster than bulk_update().
        Place.objects.bulk_create(
            places,
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=["search_name", "changed"],
        )
        Effect.leave("geography.fold_names")


@routine(atomic=False, scope="release")
def announce_release(run: Run) -> None:
    """Tell the partner: at least once, and with the same key should it be more often."""
    if conf.PARTNER_URL:
        partner.announce(conf.RELEASE, key=run.key)

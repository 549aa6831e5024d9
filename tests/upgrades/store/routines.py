"""The routines of a release, as ``ONCE_RELEASE`` numbers it. Each counts its effects."""

import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.db.models import Exists, OuterRef

from once import Run, content, routine, state

Body = Callable[..., Any]

RELEASE = int(os.environ["ONCE_RELEASE"])
#: By the release that brings them: the rates of countries, as a version each.
RATES = {1: {"at": 20, "ch": 8}, 7: {"at": 20, "de": 19}, 12: {"ch": 9, "de": 19, "fr": 20}}
#: By the release that brings it: the version of a message to another system.
MESSAGES = {4: 1, 9: 2}
#: By the release that brings it: what a setting must be.
FEATURES = {2: "search", 5: "search, votes", 8: "votes", 12: "votes, maps"}


def since(release: int, **options: Any) -> Callable[[Body], Body]:
    """Declare a routine from a release on."""
    return routine(**options) if release <= RELEASE else lambda body: body


def newest(by_release: dict[int, Any]) -> int:
    """Return the number of the last release of some that this code is not older than."""
    return max((release for release in by_release if release <= RELEASE), default=0)


def named(by_release: dict[int, str]) -> dict[str, Any]:
    """Return the name of a routine, and those that it had in releases before."""
    *before, name = [name for release, name in by_release.items() if release <= RELEASE] or [""]
    return {"name": name, "renamed_from": before}


def effect(apps: Any, name: str, item: object, origin: int = 0) -> None:
    """Count an effect."""
    apps.get_model("store", "Effect").objects.create(routine=name, item=str(item), origin=origin)


# Rows of the releases before. Each of these stands before a migration.


def unfilled(apps: Any) -> Any:
    return apps.get_model("store", "Product").objects.filter(slug=None)


#: Migrations, and routines after it, go on calling it by the first name.
SLUGS = {2: "store.fill_slugs", 3: "store.fill_handles", 9: "store.fill_labels"}


@since(2, **named(SLUGS), over=unfilled, batch_size=4, last_pass=True)
def fill_slugs(products: Any, apps: Any) -> None:
    for product in products:
        product.slug = f"{product.name}-{product.pk}".lower()
        product.save()
        effect(apps, "fill_slugs", product.pk, product.origin)


def unlinked(apps: Any) -> Any:
    return apps.get_model("store", "Order").objects.filter(customer=None)


@since(4, over=unlinked, batch_size=4, last_pass=True)
def link_customers(orders: Any, apps: Any) -> None:
    customers = apps.get_model("store", "Customer").objects
    for order in orders:
        customer, _ = customers.get_or_create(name=order.customer_name, origin=order.origin)
        customer.orders += 1
        customer.save()
        order.customer = customer
        order.save()
        effect(apps, "link_customers", order.pk, order.origin)


def repeated(apps: Any) -> Any:
    orders = apps.get_model("store", "Order").objects
    same = orders.filter(reference=OuterRef("reference"), pk__lt=OuterRef("pk"))
    return orders.filter(Exists(same))


@since(6, over=repeated, batch_size=4, last_pass=True)
def tell_orders_apart(orders: Any, apps: Any) -> None:
    for order in orders:
        order.reference += f"-{order.pk}"
        order.save()
        effect(apps, "tell_orders_apart", order.pk, order.origin)


def numbers(apps: Any) -> list[int]:
    """Return a list, of which each batch is a part by its place."""
    products = apps.get_model("store", "Product").objects
    return [*products.order_by("pk").values_list("pk", flat=True)]


@since(8, over=numbers, batch_size=4, after=["store.fill_slugs"])
def add_cents(pks: Any, apps: Any) -> None:
    """Add: what is done twice has the wrong price."""
    for product in apps.get_model("store", "Product").objects.filter(pk__in=pks).exclude(price=""):
        product.cents += int(Decimal(product.price) * 100)
        product.save()
        effect(apps, "add_cents", product.pk, product.origin)


@since(11)
def count_sold(apps: Any) -> None:
    orders = apps.get_model("store", "Order").objects
    for stock in apps.get_model("store", "Stock").objects.filter(sold=None):
        stock.sold = orders.filter(product_id=stock.pk).count()
        stock.save()
        effect(apps, "count_sold", stock.pk, stock.origin)


# What each release brings, whatever was before.


@since(1, version=1 + [*RATES].index(newest(RATES)))
def seed_countries(apps: Any) -> None:
    countries = apps.get_model("store", "Country").objects
    rates = RATES[newest(RATES)]
    countries.exclude(code__in=rates).delete()
    for code, rate in rates.items():
        more = {"continent": "eu"} if RELEASE >= 7 else {}
        countries.update_or_create(code=code, defaults={"rate": rate, **more})
    effect(apps, "seed_countries", rates)


TARIFFS = {1: "store.seed_plans", 7: "store.seed_tariffs", 10: "store.seed_offers"}


@since(1, **named(TARIFFS))
def seed_tariffs(apps: Any) -> None:
    """Add: what runs again under another name is counted."""
    tariffs, _ = apps.get_model("store", "Setting").objects.get_or_create(name="tariffs")
    tariffs.value += "+"
    tariffs.save()
    effect(apps, "seed_tariffs", "")


@since(3, scope=content("data/*.txt"))
def load_discounts(apps: Any) -> None:
    text = (Path(__file__).parent / "data" / "discounts.txt").read_text()
    settings = apps.get_model("store", "Setting").objects
    settings.update_or_create(name="discounts", defaults={"value": text})
    effect(apps, "load_discounts", text)


def features() -> str:
    return FEATURES[newest(FEATURES)]


@since(2, scope=state(features))
def sync_features(apps: Any) -> None:
    settings = apps.get_model("store", "Setting").objects
    settings.update_or_create(name="features", defaults={"value": features()})
    effect(apps, "sync_features", features())


@since(1, scope="release")
def announce(apps: Any) -> None:
    effect(apps, "announce", RELEASE)


@since(4, version=MESSAGES.get(newest(MESSAGES), 1), atomic=False, after=["store.seed_countries"])
def notify(apps: Any, run: Run) -> None:
    """Send a message: its effect commits by itself."""
    effect(apps, "notify", f"version {MESSAGES[newest(MESSAGES)]}")

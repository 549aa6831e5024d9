"""Every snippet of the page about the tests of projects works as it stands there."""

import re
from pathlib import Path

import pytest

from tests.docs.shop import MODELS, SETTINGS, run
from tests.project import ROOT

PAGE = (ROOT / "docs" / "how-to" / "test-your-project.md").read_text()
BLOCKS = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
PLACES = {
    "shop/routines.py",
    "conftest.py",
    "shop/tests.py",
    "shop/test_payments.py",
    "shop/test_routines.py",
    "tests/test_helpers.py",
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project made of the page's snippets."""
    for place, source in BLOCKS:
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + source)
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "models.py").write_text(MODELS)
    (tmp_path / "settings.py").write_text(f'{SETTINGS}INSTALLED_APPS = ["once", "shop"]\n')
    (tmp_path / "urls.py").write_text("urlpatterns = []\n")
    (tmp_path / "requests.py").write_text(
        "def post(url, json, headers, timeout):\n    raise OSError\n"
    )
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nDJANGO_SETTINGS_MODULE = settings\npython_files = test*.py\n"
    )
    run(tmp_path, "django", "makemigrations", "shop")
    return tmp_path


def test_every_snippet_has_its_place_here() -> None:
    assert {place for place, _ in BLOCKS} == PLACES
    assert len(BLOCKS) == PAGE.count("```python")


def test_snippets_work_with_django_alone(shop: Path) -> None:
    (shop / "conftest.py").unlink()
    run(shop, "django", "test", "shop.tests")


def test_snippets_work_with_the_session_fixture(shop: Path) -> None:
    # Those of single routines are for databases in which these did not run.
    done = run(shop, "pytest", "shop/tests.py", "shop/test_payments.py", "tests")
    assert "5 passed" in done


def test_snippets_of_single_routines_work(shop: Path) -> None:
    (shop / "conftest.py").unlink()
    assert "8 passed" in run(shop, "pytest", "shop/test_routines.py", "shop/tests.py", "tests")


def test_message_is_the_one_of_the_page(shop: Path) -> None:
    (shop / "conftest.py").unlink()
    path = shop / "shop" / "routines.py"
    source = path.read_text().replace(
        'Price.objects.update_or_create(currency=currency, defaults={"amount": 100})',
        "Price.objects.filter(currency=currency).delete()\n"
        "        Price.objects.create(currency=currency, amount=100)",
    )
    path.write_text(source)
    (shop / "shop" / "test_routines.py").write_text(
        "from once.testing import assert_idempotent\n"
        "from shop.routines import seed_prices\n"
        "from shop.models import Currency\n"
        "import pytest\n"
        "@pytest.mark.django_db\n"
        "def test_told():\n"
        "    Currency.objects.create(code='EUR')\n"
        "    with pytest.raises(AssertionError) as told:\n"
        "        assert_idempotent(seed_prices)\n"
        "    print(f'AssertionError: {told.value}')\n"
    )
    output = run(shop, "pytest", "-s", "shop/test_routines.py")
    [shown] = re.findall(r"```text\n(AssertionError: .*?)```", PAGE, re.DOTALL)
    for line in shown.splitlines():
        assert re.sub(r"\d+", "#", line) in re.sub(r"\d+", "#", output)

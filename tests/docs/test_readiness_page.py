"""Every snippet of the page on readiness works as it stands there."""

from pathlib import Path

from tests.docs.shop import blocks, make, run
from tests.project import ROOT

PAGE = (ROOT / "docs" / "reference" / "readiness.md").read_text()

ASK = """
import django
from django.test import Client, override_settings

django.setup()
with override_settings(ROOT_URLCONF="health.urls", ALLOWED_HOSTS=["*"]):
    for page in ("/health/", "/staff/health/"):
        print(Client().get(page, {"format": "json"}).content.decode())
"""

ROUTINES = """

@routine
def load_currencies():
    Currency.objects.create(code="EUR")
"""


def test_health_tells_strangers_less_than_staff(tmp_path: Path) -> None:
    make(tmp_path, [("shop", ROUTINES)])
    (tmp_path / "health").mkdir()
    assert PAGE.count("```python\n") == len(blocks(PAGE))
    for place, source in blocks(PAGE):
        (tmp_path / place).write_text(source)
    run(tmp_path, "django", "makemigrations", "shop")
    run(tmp_path, "django", "migrate")
    (tmp_path / "ask.py").write_text(ASK)
    strangers, staff = run(tmp_path, "ask").splitlines()
    assert '"Database(alias=\'default\')": "OK"' in strangers
    assert "Not done: 1 pending" in strangers
    assert "shop.load_currencies pending" in staff

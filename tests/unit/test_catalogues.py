"""The catalogues of translations: complete, and compiled as they are written."""

import ast
import re
from pathlib import Path

import django
import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.utils.translation.template import templatize

import once

PACKAGE = Path(once.__file__).parent
LOCALE = PACKAGE / "locale"
LANGUAGES = sorted(path.name for path in LOCALE.iterdir())
#: The functions whose first argument ``makemessages`` takes for a text to translate.
CALLS = {"gettext", "gettext_lazy", "gettext_noop", "ngettext", "_"}

pytestmark = pytest.mark.parametrize("language", LANGUAGES)


def written(language: str, locale: Path = LOCALE) -> Catalog:
    with (locale / language / "LC_MESSAGES" / "django.po").open() as file:
        return read_po(file, locale=language)


def texts(catalog: Catalog) -> dict[str, tuple[str, ...]]:
    """The translations in each form, by the English text in its first form."""
    return {_forms(each.id)[0]: _forms(each.string) for each in catalog if each.id}


def _forms(text: object) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)  # type: ignore[arg-type]


def in_code() -> set[str]:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in CALLS and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    for path in PACKAGE.rglob("*.html"):
        calls = re.findall(r"gettext\(u?('[^']*'|\"[^\"]*\")\)", templatize(path.read_text()))
        found |= {ast.literal_eval(each) for each in calls}
    return found


def fields(text: str) -> tuple[set[str], int]:
    """The places of a text that are filled in: with a name, and by their order."""
    return {*re.findall(r"%\(\w+\)s|\{\w[^}]*\}", text)}, text.count("{}")


def test_every_text_is_translated_and_none_is_left_over(language: str) -> None:
    catalog = written(language)
    assert set(texts(catalog)) == in_code()
    assert [each.id for each in catalog if not all(_forms(each.string))] == []
    assert [each.id for each in catalog if each.id and each.fuzzy] == []
    assert list(catalog.obsolete) == []


def test_translation_fills_in_what_the_text_does(language: str) -> None:
    for english, translations in texts(written(language)).items():
        for each in translations:
            assert fields(each) == fields(english), english


def test_catalogue_is_compiled_as_it_is_written(language: str) -> None:
    with (LOCALE / language / "LC_MESSAGES" / "django.mo").open("rb") as file:
        assert texts(read_mo(file)) == texts(written(language))


def test_text_of_djangos_admin_stays_as_django_has_it(language: str) -> None:
    """Because all apps share their texts, another translation would show on pages of others."""
    theirs = texts(written(language, Path(django.__file__).parent / "contrib/admin/locale"))
    ours = texts(written(language))
    assert {each: ours[each] for each in ours if each in theirs} == {
        each: theirs[each] for each in theirs if each in ours
    }

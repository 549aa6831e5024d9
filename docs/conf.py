"""The site: ``sphinx-build -W --keep-going -n -q docs build/docs``. It needs no network."""

import django
from django.conf import settings
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

# The reference is read off the code, whose models need a project.
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "once"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()

project = "django-once"
author = "The django-once authors"
copyright = author  # noqa: A001
html_title = project

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False

# The headings to which pages link. A link to a file outside of docs/ becomes a download of it.
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
# What other packages document is not in this site, and nothing is fetched to find it.
nitpick_ignore_regex = [
    (r"py:\w+", r"(django|health_check|prometheus_client)\..*|[A-Z]\w+Error|KeyboardInterrupt")
]


def setup(app: Sphinx) -> None:
    """Have sections of docstrings read; comments on attributes have none."""
    app.connect("autodoc-process-docstring", _read_sections)


def _read_sections(
    app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]
) -> None:
    if what not in ("attribute", "data", "property"):
        # Types are in the code: what stands before a colon is the beginning of a sentence.
        lines[:] = GoogleDocstring(lines, Config(napoleon_use_rtype=False), what=what).lines()

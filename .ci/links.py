"""Make links work outside of the repository, in a copy from which a release is built.

    python .ci/links.py https://github.com/OWNER/django-once

The address replaces the placeholder in ``[project.urls]``. Links and pictures of the README, which
are relative in the repository, lead to the files of this version there.
"""

import re
import sys
import tomllib
from pathlib import Path

PLACEHOLDER = "https://example.invalid/django-once"


def main(address: str) -> None:
    """Rewrite both files in the current directory."""
    project, readme = Path("pyproject.toml"), Path("README.md")
    text = project.read_text()
    version = tomllib.loads(text)["project"]["version"]
    project.write_text(text.replace(PLACEHOLDER, address.rstrip("/")))

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link["bang"] else "blob"  # a picture itself, not a page about it
        return f"{link[0]}{address.rstrip('/')}/{kind}/v{version}/"

    relative = r"(?P<bang>!?)\[[^\]]*\]\((?!\w+:|#)"
    readme.write_text(re.sub(relative, absolute, readme.read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])

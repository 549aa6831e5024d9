"""django-post-deploy, which is closest in shape."""

import io

from django.core.management import call_command

from benchmarks.contenders import Contender
from benchmarks.project.post_deploy import declare

__all__ = ["PostDeploy"]


class PostDeploy(Contender):
    """Its command, called in this process: it has no other face that runs all that is pending."""

    apps = ("post_deploy",)
    command = ("deploy", "--auto")

    def prepare(self, count: int, first: int = 0) -> None:
        declare(count, first)

    def run(self) -> None:
        call_command("deploy", auto=True, stdout=io.StringIO())

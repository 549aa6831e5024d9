"""The routines as django-post-deploy finds them: by the paths of their functions."""

from collections.abc import Callable

from post_deploy import post_deploy_action

from benchmarks.project import work

__all__ = ["declare"]


def declare(count: int, first: int = 0) -> None:
    """Have that many actions, and no others."""
    post_deploy_action.bindings.clear()
    for name in work.names(count, first):
        action = _action(name)
        globals()[action.__name__] = action
        post_deploy_action(action)


def _action(name: str) -> Callable[[], None]:
    def action() -> None:
        work.effect(name)

    action.__name__ = action.__qualname__ = name.partition(".")[2]
    return action


declare(work.COUNT)

"""Resume routines that were paused: the next run or server start takes them up where they stand."""

from functools import partial

from once.cli import pause
from once.models import Wish

USAGE = pause.USAGE

add_arguments = pause.add_arguments
handle = partial(pause.wish, Wish.Kind.RESUME)

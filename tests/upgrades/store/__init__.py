"""The app of the project, as its last release has it; earlier ones have fewer migrations."""

from . import steps as steps

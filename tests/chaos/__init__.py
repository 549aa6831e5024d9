"""A long randomised run: faults at random, and an observer that knows no code of ``once``."""

"""Speed and scale, measured beside the alternatives: ``python -m benchmarks --help``."""

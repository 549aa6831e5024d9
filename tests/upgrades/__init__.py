"""Upgrades of a project with data from each of its releases to each later one."""

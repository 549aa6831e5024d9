"""Declare, find and order routines, and go through their items. Knows no lock and no record."""

"""Declare, find and order routines. Knows no database."""

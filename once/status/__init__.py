"""Standings of routines, for people and for programs, and decisions of a person."""

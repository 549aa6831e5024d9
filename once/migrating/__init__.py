"""Django's migrations: under a lock, each applied once, and after the routines that they need."""

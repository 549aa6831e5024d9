"""Start-up: when a process runs its routines, and how a server does."""

"""``manage.py once``: flags in, progress and exit codes out."""

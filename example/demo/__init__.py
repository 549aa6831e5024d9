"""What ``python -m example`` is made of: no part of the Django project."""

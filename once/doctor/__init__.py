"""``manage.py once doctor``: prove that a deployment can keep the promise."""

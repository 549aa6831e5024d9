"""A Django project that uses once, and the demonstration that runs it."""

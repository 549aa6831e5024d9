"""A back end whose schema is what the calling code activated, as that of django-pgschemas is."""

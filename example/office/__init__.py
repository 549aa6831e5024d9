"""An app of routines that fail, wait for a person, and take long: for pictures of the admin."""

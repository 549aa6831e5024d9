"""Settings of the project that is measured; the environment says what differs."""

import environ

env = environ.Env()

SECRET_KEY = "only for benchmarks"  # noqa: S105
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "benchmarks.project",
    "benchmarks.project.steps",
    *env.list("BENCHMARK_APPS", default=["once", "pgactivity", "pglock", "post_deploy"]),
]
DATABASES = {"default": env.db_url("DATABASE_URL")}
# Where the contender that is made of migrations has written them.
MIGRATION_MODULES = {"steps": env.str("BENCHMARK_STEPS", default=None)}

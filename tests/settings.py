"""Settings of the tests, in this process and in those that they start."""

import os
import tempfile

import environ

env = environ.Env()

if "DATABASE_URL" not in os.environ:
    from tests.servers import database_url

    os.environ["DATABASE_URL"] = database_url()

SECRET_KEY = "only for tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = env.list(
    "TEST_APPS",
    default=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "django.contrib.staticfiles",
        "once",
        "tests.shop",
    ],
)
if "django.contrib.admin" in INSTALLED_APPS:
    MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]
    TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ]
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the others take long
DATABASES = {
    "default": env.db_url("DATABASE_URL"),
    "sqlite": env.db_url_config(
        env.str("TEST_SQLITE", default=f"sqlite:///{tempfile.gettempdir()}/once.sqlite3")
    ),
}
if isolation := env.int("TEST_ISOLATION", default=0):
    levels = ("read uncommitted", "read committed", "repeatable read", "serializable")
    is_mysql = DATABASES["default"]["ENGINE"].endswith("mysql")
    DATABASES["default"].setdefault("OPTIONS", {})["isolation_level"] = (
        levels[isolation - 1] if is_mysql else isolation  # psycopg.IsolationLevel
    )
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
STATIC_ROOT = env.str("TEST_STATIC", default="")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "loggers": {"once": {"handlers": ["stderr"], "level": "INFO"}},
}

"""Django's settings, which are the process's: whoever tests it configures them first."""

import django
from django.conf import settings


def configure():
    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            LOGGING_CONFIG=None,
            SECRET_KEY="of tests",
        )
        django.setup()

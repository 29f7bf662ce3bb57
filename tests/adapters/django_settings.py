"""Django's settings are the process's: whoever tests it imports this first."""

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    LOGGING_CONFIG=None,
    SECRET_KEY="of tests",
)
django.setup()

"""Polls in Django with SQLite, whose code does not mention insitu.

    python examples/django/manage.py migrate
    insitu run python examples/django/manage.py runserver

Then look at http://127.0.0.1:8000/monitoring/: the list of questions asks for the votes of each by itself (N+1), and
says so. The other way is one line in the settings: `MIDDLEWARE = ["insitu.adapters.django.Middleware", *MIDDLEWARE]`.
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "polls.settings")
    execute_from_command_line(sys.argv)

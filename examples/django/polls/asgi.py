"""For ASGI servers: `insitu run uvicorn polls.asgi:application`."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "polls.settings")
application = get_asgi_application()

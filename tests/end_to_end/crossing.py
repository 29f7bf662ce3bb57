"""Two services whose code does not mention insitu: Django asks FastAPI, which asks PostgreSQL and Redis."""

import os

import httpx


def front():
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    def page(request, number):
        return HttpResponse(httpx.get(f"{os.environ['BACK']}/authors/{number}").text)

    settings.configure(
        ALLOWED_HOSTS=["*"],
        LOGGING_CONFIG=None,
        ROOT_URLCONF=(path("pages/<int:number>", page), path("ready", lambda _: HttpResponse("yes"))),
    )
    django.setup()
    return get_wsgi_application()


def back():
    import redis
    import sqlalchemy
    from fastapi import FastAPI

    app = FastAPI()
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://{os.environ['POSTGRESQL']}")
    cache = redis.Redis(port=int(os.environ["REDIS"]))

    @app.get("/ready")
    def ready():
        return "yes"

    @app.get("/authors/{number}")
    def author(number: int):
        one = sqlalchemy.text("SELECT :name AS name")
        with engine.connect() as connection:
            names = [connection.execute(one, {"name": str(each)}).scalar() for each in range(number)]  # N+1
        cache.get("authors")
        return names

    return app

"""Applications that end, each in a process of its own. One order is a span, a log record and a count."""

import multiprocessing
import os
import signal
import sys
import time

import psutil  # insitu loads it a moment later; Python forgets about a Ctrl-C where anything is compiled behind it

import insitu

assert psutil
insitu.init()
orders = insitu.counter("orders", help="Orders placed.")


def order():
    insitu.log.info("an order is placed")
    orders.add(1)
    return "ok"


def fastapi():
    from fastapi import FastAPI

    app = FastAPI()
    app.get("/order")(order)
    return insitu.instrument(app)


def flask():
    from flask import Flask

    app = Flask("exits")
    app.add_url_rule("/order", view_func=order)
    return insitu.instrument(app)


def _django():
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path

    settings.configure(
        ALLOWED_HOSTS=["*"],
        LOGGING_CONFIG=None,
        MIDDLEWARE=["insitu.adapters.django.Middleware"],
        ROOT_URLCONF=(path("order", lambda _: HttpResponse(order())),),
    )
    django.setup()


def django_wsgi():
    from django.core.wsgi import get_wsgi_application

    _django()
    return get_wsgi_application()


def django_asgi():
    from django.core.asgi import get_asgi_application

    _django()
    return get_asgi_application()


def job(number):
    for _ in range(number):
        with insitu.span("order"):
            order()


def main(how, number):
    """A script that does its orders and ends."""
    if how in {"fork", "spawn", "forkserver"}:
        process = multiprocessing.get_context(how).Process(target=job, args=(number,))
        process.start()
        process.join()
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    job(number)
    print("done", flush=True)
    if how == "sys.exit":
        sys.exit(3)
    if how == "exception":
        raise LookupError("the end")
    if how == "os.fork" and os.fork() == 0:
        sys.exit(0)
    while how.startswith("SIG"):
        time.sleep(0.05)  # what comes right before a sleep begins is seen when it is over


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

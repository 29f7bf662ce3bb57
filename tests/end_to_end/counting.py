"""An application that counts its visitors by insitu and by prometheus_client, for servers of many workers."""

import os

import prometheus_client
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from flask import Flask

import insitu

visits = insitu.counter("visits", labels=("kind",))
took = insitu.histogram("took", unit="s")
depth = insitu.gauge("depth", merge="sum")
own = prometheus_client.Counter("own_visits", "Counted by prometheus_client.")


def count():
    """Count a visitor, and return who does."""
    visits.add(kind="page")
    took.record(0.2)
    depth.set(1)
    own.inc()
    return str(os.getpid())


def flask():
    app = insitu.instrument(Flask("counting"))
    app.get("/")(count)
    app.get("/ready")(lambda: "")
    return app


def fastapi():
    app = insitu.instrument(FastAPI())
    app.get("/", response_class=PlainTextResponse)(count)
    app.get("/ready")(lambda: "")
    return app

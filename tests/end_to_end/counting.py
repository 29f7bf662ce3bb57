"""An application that counts its visitors by insitu and by prometheus_client, for servers of many workers."""

import os
import time

import prometheus_client
from flask import Flask

import insitu

visits = insitu.counter("visits", labels=("kind",))
took = insitu.histogram("took", unit="s")
depth = insitu.gauge("depth", merge="sum")
own = prometheus_client.Counter("own_visits", "Counted by prometheus_client.")


def flask():
    app = insitu.instrument(Flask("counting"))

    @app.get("/")
    def visit():
        visits.add(kind="page")
        took.record(0.2)
        depth.set(1)
        own.inc()
        return str(os.getpid())

    @app.get("/slow")
    def slow():
        time.sleep(0.05)
        return ""

    return app

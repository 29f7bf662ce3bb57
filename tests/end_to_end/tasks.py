"""A Celery application. One order is a span, a log record, a count, and a line of a file.

python -m tests.end_to_end.tasks order 60
"""

import os
import signal
import sys
import time
from pathlib import Path

import billiard.pool
from celery import Celery

import insitu

# A child whose last result came in while its worker ended waits half a minute for it to be read, insitu or not.
billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 10

insitu.init()
orders = insitu.counter("orders", help="Orders placed.")
folder = Path(os.environ["TASKS_FOLDER"])
for name in ("queue", "control"):
    (folder / name).mkdir(exist_ok=True)

app = Celery("tests.end_to_end.tasks", broker=os.environ["TASKS_BROKER"], set_as_current=False)
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1)
if app.conf.broker_url == "filesystem://":
    options = {"data_folder_in": folder / "queue", "data_folder_out": folder / "queue", "polling_interval": 0.02}
    app.conf.broker_transport_options = {**options, "control_folder": folder / "control"}


@app.task
def order():
    insitu.log.info("an order is placed")
    orders.add(1)
    time.sleep(0.02)
    note("order")


@app.task(time_limit=1)
def endless():
    note("endless")
    time.sleep(60)


@app.task(soft_time_limit=1)
def slow():
    note("slow")
    time.sleep(60)


@app.task
def doomed():
    note("doomed")
    os.kill(os.getpid(), signal.SIGKILL)


def note(what):
    with (folder / "ran").open("a") as file:
        file.write(f"{what}\n")


def main(task, number):
    for _ in range(number):
        app.tasks[f"tests.end_to_end.tasks.{task}"].delay()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""A log record with two fields, as a line of JSON in a file that is /dev/null."""

from __future__ import annotations

import logging
import os

from pythonjsonlogger.json import JsonFormatter

import insitu
from benchmarks import ours, timing

RECORDS = 5_000


def insitu_log() -> timing.Round:
    """`insitu.log.info`, written by `log_output`."""
    ours.start(log_output=os.devnull)

    def work(records: int) -> None:
        info = insitu.log.info
        for _ in range(records):
            info("order placed", order=3, plan="pro")

    return timing.whole(work, RECORDS, ours.flush)


def insitu_stdlib() -> timing.Round:
    """The standard library's logger, captured and written by `log_output`; the host prints nothing itself."""
    ours.start(log_output=os.devnull)
    logger = _logger(logging.NullHandler())
    return timing.whole(lambda records: _by_stdlib(logger, records), RECORDS, ours.flush)


def stdlib() -> timing.Round:
    """The standard library's logger alone: making a record that goes nowhere."""
    logger = _logger(logging.NullHandler())
    return timing.whole(lambda records: _by_stdlib(logger, records), RECORDS)


def json_logger() -> timing.Round:
    """python-json-logger as it comes."""
    handler = logging.FileHandler(os.devnull)
    handler.setFormatter(JsonFormatter())
    logger = _logger(handler)
    return timing.whole(lambda records: _by_stdlib(logger, records), RECORDS)


def _logger(handler: logging.Handler) -> logging.Logger:
    logger = logging.getLogger("shop")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    return logger


def _by_stdlib(logger: logging.Logger, records: int) -> None:
    info = logger.info
    for _ in range(records):
        info("order placed", extra={"order": 3, "plan": "pro"})

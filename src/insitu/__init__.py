"""insitu: an application performance monitor that lives inside a Python process.

import insitu

insitu.init(service="shop")
insitu.instrument(app)
"""

from insitu.runtime import flush, init, instrument, shutdown
from insitu.signals.block import span
from insitu.signals.decorators import trace
from insitu.signals.errors import capture, message
from insitu.signals.fields import bind
from insitu.signals.logs import log
from insitu.signals.metrics import counter, gauge, histogram, updown
from insitu.signals.tracing import trace_id
from insitu.signals.webhooks import webhook

__all__ = [
    "bind",
    "capture",
    "counter",
    "flush",
    "gauge",
    "histogram",
    "init",
    "instrument",
    "log",
    "message",
    "shutdown",
    "span",
    "trace",
    "trace_id",
    "updown",
    "webhook",
]

"""The host's logging stays its own: what it prints is the same, byte for byte, with insitu and without."""

import json
import os
import subprocess
import sys

import pytest

BASIC = "logging.basicConfig(level=logging.INFO, format='%(levelname)s %(name)s %(message)s')"
DICT = """
logging.config.dictConfig({
    "version": 1,
    "disable_existing_loggers": %s,
    "formatters": {"f": {"format": "%%(levelname)s|%%(name)s|%%(message)s"}},
    "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}},
    "loggers": {"quiet": {"level": "ERROR"}, "alone": {"handlers": ["h"], "propagate": False, "level": "DEBUG"}},
    "root": {"handlers": ["h"], "level": "INFO"},
})
"""
UVICORN = "import uvicorn.config; logging.config.dictConfig(uvicorn.config.LOGGING_CONFIG)"
INIT = "import insitu; insitu.init(service='host', exporters=(), libraries=())"

SPEAK = """
early = logging.getLogger("made.early")
%(first)s
%(second)s
for name in ("app", "quiet", "alone", "made.early", "uvicorn", "uvicorn.error", ""):
    logger = logging.getLogger(name)
    logger.debug("debug %%s", 1)
    logger.info("info %%(a)s", {"a": 2})
    logger.warning("warning", extra={"order": 3})
    try:
        1 / 0
    except ZeroDivisionError:
        logger.exception("failed")
    logger.error("wrong %%d", "arguments") if %(wrong)s else None
logging.getLogger("uvicorn.access").info('%%s - "%%s %%s HTTP/%%s" %%d', "127.0.0.1:1", "GET", "/", "1.1", 200)
print("handlers", [type(handler).__name__ for handler in logging.root.handlers], logging.root.level, file=sys.stderr)
for logger in (logging.getLogger("app"), early):
    print(logger.name, logger.level, logger.disabled, file=sys.stderr)
"""

HEAD = "import logging, logging.config, sys, warnings\nlogging.raiseExceptions = False\n"


def said(code, *flags):
    """What a program printed: standard output and standard error."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("INSITU", "OTEL"))}
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        env=environment,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, done.stderr


def speak(first, second, wrong=False):
    return HEAD + SPEAK % {"first": first or "pass", "second": second or "pass", "wrong": wrong}


CONFIGURATIONS = {
    "basicConfig": BASIC,
    "basicConfig force": BASIC.replace("level", "force=True, level", 1),
    "dictConfig": DICT % "False",
    "dictConfig that disables": DICT % "True",
    "uvicorn's": UVICORN,
    "captureWarnings": BASIC
    + "; logging.captureWarnings(True); warnings.warn_explicit('old', UserWarning, 'host.py', 7)",
    "lastResort": "pass",
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_console_is_the_same_byte_for_byte_whenever_insitu_starts(name):
    configuration = CONFIGURATIONS[name].strip()
    alone = said(speak(configuration, "pass"))
    assert alone[1].count(b"ZeroDivisionError") >= 1
    for first, second in ((configuration, INIT), (INIT, configuration)):
        assert said(speak(first, second)) == alone


def test_a_message_whose_arguments_do_not_fit_is_complained_of_as_before():
    code = speak(BASIC, "...", wrong=True).replace("logging.raiseExceptions = False", "")
    alone, watched = (said(code.replace("\n...\n", f"\n{line}\n"))[1].decode().splitlines() for line in ("pass", INIT))
    assert "--- Logging error ---" in alone
    # The stack that the standard library shows here has one frame more: ours.
    frames = [line for line in watched if "insitu" in line and 'File "' not in line and "original(" not in line]
    assert frames == []
    assert [line for line in watched if line in alone] == alone


def test_basicconfig_after_init_still_configures():
    _, console = said(speak(INIT, BASIC))
    assert b"INFO app info 2\n" in console
    assert b"handlers ['StreamHandler'] 20" in console


def test_after_shutdown_logging_is_what_it_was():
    code = f"""
import logging
before = logging.Logger.callHandlers
{INIT}
inside = logging.Logger.callHandlers
insitu.shutdown()
print(before is logging.Logger.callHandlers, before is inside, logging.root.handlers, logging.root.level)
"""
    assert said(code)[0] == b"True False [] 30\n"


def test_a_handlers_own_view_of_the_record_is_untouched():
    code = f"""
import logging
seen = []
class Keep(logging.Handler):
    def emit(self, record):
        seen.append(sorted(vars(record)))
logging.getLogger().addHandler(Keep())
logging.getLogger("a").warning("x %s", 1, extra={{"order": 3}})
{INIT}
logging.getLogger("a").warning("x %s", 1, extra={{"order": 3}})
print(seen[0] == seen[1])
"""
    assert said(code)[0] == b"True\n"


SERVER = """
import asyncio, logging, sys, threading
import httpx, uvicorn
from fastapi import FastAPI

app = FastAPI()
%s

@app.get("/items/{number}")
async def item(number: int):
    logging.getLogger("uvicorn.error").warning("item %%s", number)
    return number

@app.get("/boom")
async def boom():
    raise LookupError("boom")

async def main():
    server = uvicorn.Server(uvicorn.Config(app, port=0))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        for path in ("/items/1", "/items/x", "/none", "/boom"):
            await client.get(path)
    server.should_exit = True
    await task

asyncio.run(main())
"""


def test_uvicorn_prints_the_same_lines_with_and_without_us():
    def lines(console):
        text = console.decode()
        # Ports and process numbers change, and the traceback shows our own frame as it shows every middleware's.
        words = [line for line in text.splitlines() if line.startswith(("INFO", "WARNING", "ERROR"))]
        return ["".join(letter for letter in line if not letter.isdigit()) for line in words]

    watched = "import insitu; insitu.instrument(app, service='host', exporters=(), libraries=())"
    alone = [lines(stream) for stream in said(SERVER % "pass")]
    with_us = [lines(stream) for stream in said(SERVER % watched)]
    assert sum("LookupError" in line or "Exception in ASGI" in line for line in alone[1]) == 1
    assert with_us == alone


# -- a handler whose own export logs (FAULTS 33)


LOOP = """
import json, logging, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

logging.basicConfig(level=logging.DEBUG, stream=open("/dev/null", "w"))

class Quiet(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *arguments):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()

import os
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
os.environ["OTEL_BLRP_SCHEDULE_DELAY"] = "50"
import insitu
insitu.init(service="loop", exporters=("otlp",), libraries=())
from insitu import runtime

class Exporting(logging.Handler):
    '''A handler of the host that sends what it sees through a library that logs at DEBUG itself.'''
    def emit(self, record):
        if not record.name.startswith("urllib3"):
            import urllib3
            with urllib3.PoolManager() as pool:
                pool.request("POST", f"http://127.0.0.1:{server.server_port}/own", body=b"x")

logging.getLogger().addHandler(Exporting())
logging.getLogger("app").warning("one")

def produced():
    insitu.flush(5)
    return runtime.current().pipeline.produced["logs"]

counts = [produced()]
deadline = time.monotonic() + 2
while time.monotonic() < deadline:
    counts.append(produced())
insitu.shutdown()
print(json.dumps(counts))
"""


def test_what_our_own_export_logs_never_becomes_a_record():
    counts = json.loads(said(LOOP)[0])
    print(f"{counts[0]} records after the first flush, {counts[-1]} after {len(counts)} more in 2 s")
    assert counts[0] >= 1
    assert set(counts) == {counts[0]}

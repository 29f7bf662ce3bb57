"""Ways to reach an application: its own callable, and a real uvicorn on loopback."""

import contextlib
import inspect
import socket
import threading
from io import BytesIO

import httpx
import redis
import uvicorn

from insitu.contracts import Answer
from tests.servers import until


async def call(app, path="/", method="GET", headers=(), query=b"", client=("127.0.0.1", 50000), receive=None, **more):
    """What an application sent for one request, handed to it as a server would."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), *headers],
        "client": client,
        "server": ("127.0.0.1", 80),
        **more,
    }
    sent = []

    async def empty():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope, receive or empty, send)
    return sent


def status(sent):
    return sent[0]["status"]


def body(sent):
    return b"".join(message.get("body", b"") for message in sent[1:])


def client(app, **more):
    """An httpx client whose requests go straight into the application; a failing one answers 500."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", **more)


@contextlib.contextmanager
def served(app, **config):
    """Serves an application with uvicorn, in a thread, and gives its port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        options = {"log_config": None, "ws": "websockets-sansio", "timeout_graceful_shutdown": 3, **config}
        server = uvicorn.Server(uvicorn.Config(app, **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive(), what="uvicorn")
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


def raw(port, request):
    """The whole answer to the bytes of one request, which should ask for `connection: close`."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


def raw_status(port, request):
    line = raw(port, request).partition(b"\r\n")[0]
    return int(line.split()[1]) if line else 0


def counted(recorded, name="http.server.request.duration", **labels):
    """How many requests a histogram has counted with these labels (`_` for dots), in all scopes together."""
    wanted = {label.replace("_", "."): value for label, value in labels.items()}
    recorded.runtime.pipeline.drain(30)
    return sum(
        sum(point.buckets)
        for family in recorded.runtime.collect()
        if family.name == name
        for point in family.points
        if wanted.items() <= {label.replace("_", "."): value for label, value in point.labels.items()}.items()
    )


def plain_transports(patch, module=httpx):
    """Gives httpx's transports, or httpx2's, back as nobody has wrapped them, until the patch is undone."""
    for owner, name in ((module.HTTPTransport, "handle_request"), (module.AsyncHTTPTransport, "handle_async_request")):
        plain(patch, owner, name)


def plain(patch, owner, name):
    """Gives a function back as nobody has wrapped it, until the patch is undone."""
    patch.setattr(owner, name, inspect.unwrap(getattr(owner, name)))


def plain_redis(patch):
    """Gives redis-py's clients back as nobody has wrapped them, until the patch is undone."""
    for package in (redis, redis.asyncio):
        for owner, name in (
            (package.client.Redis, "execute_command"),
            (package.client.Pipeline, "immediate_execute_command"),
            (package.client.Pipeline, "execute"),
            (package.cluster.RedisCluster, "execute_command"),
            (package.cluster.ClusterPipeline, "execute"),
            (package.connection.BlockingConnectionPool, "get_connection"),
        ):
            plain(patch, owner, name)


def wsgi_ask(app, path, headers, pieces):
    """As a WSGI server does: the whole body, or a part and then `close`."""
    path, _, query = path.partition("?")
    started = []
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.errors": None,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
    }
    body = app(environ, lambda *given: started.append(given) or (lambda _: None))
    try:
        taken = []
        for number, piece in enumerate(body, start=1):
            taken.append(piece)
            if number == pieces:
                break
    finally:
        getattr(body, "close", list)()
    return Answer(int(started[0][0][:3]), b"".join(taken))

"""Applications without a framework, whose code does not mention insitu."""


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    found = scope["path"] == "/here"
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": []})
    await send({"type": "http.response.body", "body": b"here" if found else b""})


def wsgi(environ, start_response):
    found = environ["PATH_INFO"] == "/here"
    start_response("200 OK" if found else "404 Not Found", [])
    return [b"here" if found else b""]

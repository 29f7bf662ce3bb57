import functools

import pytest
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette

from insitu.adapters.choice import adapter_of


async def asgi(scope, receive, send):
    pass


def wsgi(environ, start_response):
    return []


class Asgi:
    async def __call__(self, *args):
        pass


class Wsgi:
    def __call__(self, *args):
        return []


class Proxy:
    def __call__(self, scope, receive, send):
        return asgi(scope, receive, send)


@pytest.mark.parametrize(
    ("app", "adapter"),
    [
        (FastAPI(), "fastapi"),
        (Starlette(), "fastapi"),
        (Flask("shop"), "flask"),
        (asgi, "asgi"),
        (Asgi(), "asgi"),
        (Proxy(), "asgi"),
        (functools.partial(asgi), "asgi"),
        (wsgi, "wsgi"),
        (Wsgi(), "wsgi"),
        (functools.partial(wsgi), "wsgi"),
        (print, "wsgi"),
        (dict.fromkeys, "wsgi"),
        (object(), ""),
        (None, ""),
    ],
)
def test_an_adapter_is_chosen_by_what_an_application_has(app, adapter):
    assert adapter_of(app) == adapter

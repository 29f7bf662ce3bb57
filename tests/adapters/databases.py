"""Drivers that get rid of their hooks again, and what tests of all of them look at."""

import contextlib
import sqlite3

import aiosqlite
import asyncpg
import psycopg
import pymysql.cursors
import sqlalchemy
from asyncpg import cursor, prepared_stmt
from sqlalchemy import event

from insitu.adapters import sqlalchemy as adapter

METHODS = [
    *((sqlite3.dbapi2, "connect"), (sqlite3, "connect"), (aiosqlite.Connection, "_execute")),
    *((psycopg.Cursor, "execute"), (psycopg.Cursor, "executemany"), (psycopg.ServerCursor, "execute")),
    *((psycopg.AsyncCursor, "execute"), (psycopg.AsyncCursor, "executemany"), (psycopg.AsyncServerCursor, "execute")),
    *((asyncpg.Connection, name) for name in ("execute", "fetch", "fetchval", "fetchrow", "executemany", "fetchmany")),
    *(
        (prepared_stmt.PreparedStatement, name)
        for name in ("fetch", "fetchval", "fetchrow", "executemany", "fetchmany")
    ),
    (asyncpg.Pool, "_acquire"),
    *((cursor.BaseCursor, "_bind"), (cursor.BaseCursor, "_bind_exec")),
    *((pymysql.cursors.Cursor, "execute"), (pymysql.cursors.Cursor, "executemany")),
]


def restored(patch):
    """Puts the drivers back as they are now, without a hook, when the patch is undone."""
    for owner, name in METHODS:
        if hasattr(owner, name):
            patch.setattr(owner, name, getattr(owner, name))


@contextlib.contextmanager
def sqlalchemy_hooked(patch):
    """SQLAlchemy with its hook, for a block."""
    patch.setattr(sqlalchemy.pool.Pool, "connect", sqlalchemy.pool.Pool.connect)
    adapter.hook(sqlalchemy)
    yield
    for name, function in adapter._LISTENERS.items():
        event.remove(sqlalchemy.engine.Engine, name, function)
    event.remove(sqlalchemy.pool.Pool, "connect", adapter._connected)
    event.remove(sqlalchemy.pool.Pool, "checkout", adapter._checked_out)


def where(span):
    """What a span says about where its statement went."""
    keys = ("db.system.name", "db.namespace", "server.address", "server.port")
    return tuple(span.attributes.get(key) for key in keys)

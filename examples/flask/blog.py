"""A blog in Flask with SQLite, whose code does not mention insitu.

    insitu run flask --app examples.flask.blog run
    insitu run insitu doctor "examples.flask.blog:create_app()"

Then look at http://127.0.0.1:5000/monitoring/: the list of posts asks for each author by itself (N+1), and says so.
The other way is one line below `app = Flask(...)`: `insitu.instrument(app)`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, abort, current_app, g, redirect, render_template, request, session, url_for
from werkzeug.security import check_password_hash, generate_password_hash

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

SCHEMA = """
CREATE TABLE IF NOT EXISTS author (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, password TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS post (
    id INTEGER PRIMARY KEY, author_id INTEGER NOT NULL REFERENCES author, title TEXT NOT NULL, body TEXT NOT NULL
);
"""

blog = Blueprint("blog", __name__)
log = logging.getLogger("blog")


def create_app(database: str = "") -> Flask:
    """Make the application, with its database in a file."""
    app = Flask("blog", root_path=str(Path(__file__).parent))
    app.secret_key = os.environ.get("BLOG_SECRET", "only for looking around")
    app.config["DATABASE"] = database or os.environ.get("BLOG_DATABASE", "blog.sqlite")
    with sqlite3.connect(app.config["DATABASE"]) as connection:
        connection.executescript(SCHEMA)
    connection.close()
    app.register_blueprint(blog)
    app.teardown_appcontext(close)
    return app


def connected() -> sqlite3.Connection:
    """Return the request's connection."""
    if "connection" not in g:
        g.connection = sqlite3.connect(current_app.config["DATABASE"])
        g.connection.row_factory = sqlite3.Row
    return g.connection


def close(_: object) -> None:
    """Close it where the request ends."""
    if (connection := g.pop("connection", None)) is not None:
        connection.close()


@blog.get("/")
def index() -> str:
    """List the posts, the author of each asked for by itself."""
    posts = connected().execute("SELECT id, title, author_id FROM post ORDER BY id DESC LIMIT 50").fetchall()
    by_whom = "SELECT name FROM author WHERE id = ?"
    authors = {post["id"]: connected().execute(by_whom, (post["author_id"],)).fetchone()["name"] for post in posts}
    return render_template("index.html", posts=posts, authors=authors)


@blog.get("/posts/<int:number>")
def post(number: int) -> str:
    """Show one post."""
    found = connected().execute("SELECT title, body FROM post WHERE id = ?", (number,)).fetchone()
    if found is None:
        abort(404)
    return render_template("post.html", post=found)


@blog.post("/posts")
def write() -> Response:
    """Write a post; who may not is told so."""
    if "author" not in session:
        abort(403)
    given = (session["author"], request.form["title"], request.form["body"])
    with connected() as connection:
        number = connection.execute("INSERT INTO post (author_id, title, body) VALUES (?, ?, ?)", given).lastrowid
    log.info("post %d is written", number)
    return redirect(url_for("blog.post", number=number))


@blog.post("/authors")
def register() -> tuple[str, int]:
    """Register an author."""
    given = (request.form["name"], generate_password_hash(request.form["password"]))
    with connected() as connection:
        connection.execute("INSERT INTO author (name, password) VALUES (?, ?)", given)
    return "", 201


@blog.post("/session")
def enter() -> Response:
    """Let an author in."""
    query = "SELECT id, password FROM author WHERE name = ?"
    found = connected().execute(query, (request.form["name"],)).fetchone()
    if found is None or not check_password_hash(found["password"], request.form["password"]):
        log.warning("somebody did not know the password")
        abort(401)
    session["author"] = found["id"]
    return redirect(url_for("blog.index"))


@blog.get("/posts/<int:number>/share")
def share(number: int) -> str:
    """Fail: there is no such thing yet."""
    raise NotImplementedError(f"post {number} cannot be shared")

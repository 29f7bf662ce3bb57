"""Django's caches, of every kind that needs no further library, sync and async."""

import asyncio
import inspect
import threading

import pytest
import redis
from django.core import cache as django_cache
from django.core.cache import CacheHandler
from django.core.cache.backends.locmem import LocMemCache
from opentelemetry.context import attach, detach, set_value

from insitu.adapters import django_cache as adapter
from insitu.adapters import redis as redis_adapter
from insitu.core import context
from insitu.testing import recording
from tests.adapters.django_settings import configure
from tests.adapters.serving import plain_redis

configure()

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
both = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(CacheHandler, "create_connection", inspect.unwrap(CacheHandler.create_connection))
    with recording() as started:
        adapter.hook(django_cache)
        yield started


@pytest.fixture
def caches(recorded, tmp_path):
    """What `django.core.cache.caches` is, with other settings."""
    made = CacheHandler({
        "default": {"BACKEND": LOCMEM, "LOCATION": str(tmp_path)},
        "other": {"BACKEND": LOCMEM, "LOCATION": f"{tmp_path}/other"},
        "files": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path)},
        "nothing": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        "inherited": {"BACKEND": f"{__name__}.Inherited", "LOCATION": f"{tmp_path}/inherited"},
        "broken": {"BACKEND": f"{__name__}.Broken"},
    })  # fmt: skip
    yield made
    made.close_all()


class Inherited(LocMemCache):
    def get(self, key, default=None, version=None):
        return super().get(key, default, version)


class Broken(LocMemCache):
    def __init__(self, location, params):
        super().__init__("broken", params)

    def get(self, key, default=None, version=None):
        raise ConnectionError("no cache today")


def ask(kind, cache, method, *args, **kwargs):
    if kind == "sync":
        return getattr(cache, method)(*args, **kwargs)

    async def run():
        return await getattr(cache, f"a{method}")(*args, **kwargs)

    return asyncio.run(run())


def counts(recorded, alias="default"):
    """How many keys were there, and how many were not."""
    families = {family.name: family for family in recorded.runtime.collect()}
    points = families["insitu.cache.requests"].points if "insitu.cache.requests" in families else ()
    found = {point.labels["result"]: point.value for point in points if point.labels["cache"] == alias}
    return found.get("hit", 0), found.get("miss", 0)


@both
@pytest.mark.parametrize("alias", ["default", "files", "inherited"])
def test_what_is_there_is_a_hit_and_what_is_not_a_miss(recorded, caches, kind, alias):
    cache = caches[alias]
    assert ask(kind, cache, "get", "a") is None
    ask(kind, cache, "set", "a", 1)
    assert ask(kind, cache, "get", key="a") == 1
    assert ask(kind, cache, "get", "gone", "default") == "default"
    assert ask(kind, cache, "get", "gone", default=7) == 7
    assert counts(recorded, alias) == (1, 3)
    assert recorded.spans == []


def test_a_cache_that_keeps_nothing_has_misses_alone(recorded, caches):
    caches["nothing"].set("a", 1)
    caches["nothing"].get("a")
    assert counts(recorded, "nothing") == (0, 1)


@both
@pytest.mark.parametrize("alias", ["default", "files", "inherited"])
@pytest.mark.parametrize("keys", [list, iter, dict.fromkeys])
def test_many_keys_are_counted_once_each(recorded, caches, kind, alias, keys):
    ask(kind, caches[alias], "set_many", {"a": 1, "b": None})
    assert ask(kind, caches[alias], "get_many", keys(["a", "b", "gone"])) == {"a": 1, "b": None}
    assert counts(recorded, alias) == (2, 1)
    assert ask(kind, caches[alias], "get_many", keys=keys(["gone"])) == {}
    assert counts(recorded, alias) == (2, 2)


@both
def test_what_is_set_where_it_is_missing_is_a_miss_and_then_a_hit(recorded, caches, kind):
    assert ask(kind, caches["default"], "get_or_set", "a", lambda: 5) == 5
    assert counts(recorded) == (0, 1)
    assert ask(kind, caches["default"], "get_or_set", "a", 6) == 5
    assert counts(recorded) == (1, 1)


@both
def test_what_is_read_to_make_a_missing_value_counts_for_itself(recorded, caches, kind):
    cache = caches["default"]
    cache.set("part", 1)

    def page():
        return cache.get_or_set("line", lambda: cache.get("part") + caches["other"].get("n", 10))

    assert ask(kind, cache, "get_or_set", "page", page) == 11
    assert counts(recorded) == (1, 2)  # part is there, line and page are not
    assert counts(recorded, "other") == (0, 1)


@both
def test_readings_at_the_same_time_do_not_hide_each_other(recorded, caches, kind):
    cache = caches["default"]
    cache.set("a", 1)

    async def run():
        await asyncio.gather(*(cache.aget("a") for _ in range(50)))

    if kind == "async":
        asyncio.run(run())
    else:
        threads = [threading.Thread(target=cache.get, args=("a",)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts(recorded) == (50, 0)


@both
def test_an_exception_is_the_applications_own_and_what_comes_after_is_counted(recorded, caches, kind):
    for method, args in (("get", ("a",)), ("get_many", (["a"],)), ("get_or_set", ("a", 1))):
        with pytest.raises(ConnectionError, match="no cache today"):
            ask(kind, caches["broken"], method, *args)
    assert counts(recorded, "broken") == (0, 0)
    ask(kind, caches["default"], "get", "a")
    assert counts(recorded) == (0, 1)


def test_what_is_called_wrongly_fails_as_before(recorded, caches):
    for call in (caches["default"].get, caches["default"].get_many, caches["default"].get_or_set):
        with pytest.raises(TypeError, match="missing"):
            call()
    with pytest.raises(TypeError, match="not iterable"):
        caches["default"].get_many(None)


def test_each_thread_has_a_cache_of_its_own_and_all_are_counted(recorded, caches):
    caches["default"].set("a", 1)
    threads = [threading.Thread(target=lambda: caches["default"].get("a")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(recorded) == (5, 0)


def test_a_cache_that_was_made_before_is_counted(monkeypatch):
    monkeypatch.setattr(CacheHandler, "create_connection", inspect.unwrap(CacheHandler.create_connection))
    early = CacheHandler({"default": {"BACKEND": LOCMEM, "LOCATION": "early"}})
    early["default"].set("a", 1)
    monkeypatch.setattr(django_cache, "caches", early)
    with recording() as recorded:
        adapter.hook(django_cache)
        early["default"].get("a")
        assert counts(recorded) == (1, 0)


def test_settings_that_nobody_has_read_are_not_read_for_us(monkeypatch):
    monkeypatch.setattr(CacheHandler, "create_connection", inspect.unwrap(CacheHandler.create_connection))
    fresh = CacheHandler()
    monkeypatch.setattr(django_cache, "caches", fresh)
    adapter.hook(django_cache)
    assert "settings" not in vars(fresh)


def test_a_cache_past_the_settings_has_no_name_and_is_not_counted(recorded, caches):
    caches["default"].get("a")
    LocMemCache("by hand", {}).get("a")
    assert counts(recorded) == (0, 1)


def test_what_is_suppressed_is_not_counted(recorded, caches):
    token = attach(set_value(context.SUPPRESS_KEY, value=True))
    try:
        caches["default"].get("a")
    finally:
        detach(token)
    assert counts(recorded) == (0, 0)


@pytest.mark.backend
@both
def test_a_cache_on_redis_counts_under_its_alias_and_redis_under_its_own(recorded, monkeypatch, redis_port, kind):
    plain_redis(monkeypatch)
    redis_adapter.hook(redis)
    options = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"redis://127.0.0.1:{redis_port}"}
    cache = CacheHandler({"pages": options})["pages"]
    cache.clear()
    ask(kind, cache, "set", "a", 1)
    assert ask(kind, cache, "get", "a") == 1
    assert ask(kind, cache, "get_many", ["a", "gone"]) == {"a": 1}
    assert counts(recorded, "pages") == counts(recorded, "redis") == (2, 1)
    assert [span.name for span in recorded.spans[:3]] == ["FLUSHDB", "SET", "GET"]
    assert {span.name for span in recorded.spans[3:]} <= {"MGET", "GET"}  # before Django 6 an async one asks key by key

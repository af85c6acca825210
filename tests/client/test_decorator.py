"""A window as a decorator: a window of its own for each call."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from greend_client import Client, current_window
from tests.client.memory_daemon import MemoryDaemon, Start, Stop


def starts(client: Client, daemon: MemoryDaemon) -> list[Any]:
    client.close()
    assert sorted(s.window_id for s in daemon.seen(Stop)) == sorted(
        s.window_id for s in daemon.seen(Start)
    )
    return daemon.seen(Start)


def test_each_call_has_a_window_of_its_own(client: Client, daemon: MemoryDaemon) -> None:
    @client.window("work", weight=2, model="llama")
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    assert (add(1), add(2, b=3)) == (2, 5)
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert list(inspect.signature(add).parameters) == ["a", "b"]
    first, second = starts(client, daemon)
    assert first.window_id != second.window_id
    assert first.monotonic_ns < second.monotonic_ns
    for start in (first, second):
        assert (start.request_id, dict(start.tags), start.weight) == (
            "work",
            {"model": "llama"},
            2,
        )


def test_a_window_that_decorates_is_not_started_itself(client: Client) -> None:
    window = client.window()
    window(len)("")
    assert not window.started


def test_inside_the_window_is_at_hand_for_tokens(client: Client, daemon: MemoryDaemon) -> None:
    @client.window()
    def generate() -> str:
        window = current_window()
        assert window is not None
        window.tokens(output=7)
        return window.window_id

    window_id = generate()
    assert current_window() is None
    client.close()
    assert daemon.windows[window_id].usage.output_tokens == 7


def test_recursion_nests(client: Client, daemon: MemoryDaemon) -> None:
    @client.window()
    def down(n: int) -> None:
        if n:
            down(n - 1)

    down(2)
    first, second, third = starts(client, daemon)
    assert [first.parent_id, second.parent_id, third.parent_id] == [
        "",
        first.window_id,
        second.window_id,
    ]


def test_an_exception_ends_the_window_and_passes_through(
    client: Client, daemon: MemoryDaemon
) -> None:
    @client.window()
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        fail()
    assert current_window() is None
    assert len(starts(client, daemon)) == 1


def test_concurrent_calls_of_a_coroutine_function_are_apart(
    client: Client, daemon: MemoryDaemon
) -> None:
    @client.window()
    async def request(ready: asyncio.Barrier, name: str) -> str:
        await ready.wait()
        with client.window(name):
            await ready.wait()
        window = current_window()
        assert window is not None
        assert not window.stopped
        return window.window_id

    async def both() -> list[str]:
        ready = asyncio.Barrier(2)
        return list(await asyncio.gather(request(ready, "a"), request(ready, "b")))

    assert inspect.iscoroutinefunction(request)
    of_a, of_b = asyncio.run(both())
    parents = {start.request_id: start.parent_id for start in starts(client, daemon)}
    assert (parents["a"], parents["b"]) == (of_a, of_b)


def test_a_cancelled_coroutine_ends_its_window(client: Client, daemon: MemoryDaemon) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        @client.window()
        async def wait() -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert len(starts(client, daemon)) == 1


def test_methods_static_methods_and_callable_objects_can_be_measured(
    client: Client, daemon: MemoryDaemon
) -> None:
    class Engine:
        @client.window()
        def method(self) -> str:
            return type(self).__name__

        @classmethod
        @client.window()
        def of_class(cls) -> str:
            return cls.__name__

        @staticmethod
        @client.window()
        def static() -> str:
            return "static"

        async def __call__(self) -> str:
            assert current_window() is not None
            return "called"

    assert (Engine().method(), Engine.of_class(), Engine.static()) == ("Engine", "Engine", "static")
    assert asyncio.run(client.window()(Engine())()) == "called"
    assert client.window()(functools.partial(int, base=2))("101") == 5
    assert len(starts(client, daemon)) == 5


def test_generator_functions_are_refused_with_what_to_do(client: Client) -> None:
    def generate() -> Iterator[int]:
        yield 1

    async def generate_async() -> AsyncIterator[int]:
        yield 1

    class Generates:
        def __call__(self) -> Iterator[int]:
            yield 1

    for function in (generate, generate_async, Generates(), functools.partial(generate)):
        with pytest.raises(TypeError, match="use `with client"):
            client.window()(function)


def test_what_is_no_function_is_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="no function"):
        client.window()(property(lambda self: 1))  # type: ignore[type-var]
    with pytest.raises(TypeError, match="@classmethod"):
        client.window()(classmethod(print))  # type: ignore[type-var]


def test_a_decorated_function_works_without_a_daemon(socket: Any) -> None:
    with Client(f"unix://{socket}") as client:
        assert client.window()(abs)(-1) == 1

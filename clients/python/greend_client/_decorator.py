"""Functions whose calls are measured, each in a context of its own."""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def decorate(make: Callable[[], AbstractContextManager[Any]], function: Function) -> Function:
    """Return ``function`` so that each call runs in a context newly made by ``make``.

    Raises:
        TypeError: It is a generator function, or no function.
    """
    if not callable(function):
        raise TypeError(f"{function!r} is no function; @classmethod and @property go above it")
    called = getattr(function, "__call__", None)  # noqa: B004
    if any(map(inspect.isgeneratorfunction, (function, called))) or any(
        map(inspect.isasyncgenfunction, (function, called))
    ):
        raise TypeError(
            f"{function!r} is a generator function, which runs only while somebody iterates: "
            "use `with client.window(...)` inside it"
        )
    if any(map(inspect.iscoroutinefunction, (function, called))):

        @functools.wraps(function)
        async def measured_async(*args: Any, **kwargs: Any) -> Any:
            with make():
                return await function(*args, **kwargs)

        return cast(Function, measured_async)

    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        with make():
            return function(*args, **kwargs)

    return cast(Function, measured)

"""How windows are asked for, of either client."""

import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import grpc

from greend_client._errors import GreendError
from greend_client._gpus import Gpus
from greend_client._record import Iteration, Record
from greend_client._sender import Sender
from greend_client._stats import Stats
from greend_client._times import known_ns
from greend_client._window import AHEAD_NS, Measured, no_instant

AnyWindow = TypeVar("AnyWindow", bound=Measured)


class Measuring(Generic[AnyWindow]):
    """Makes windows. Nothing here raises or waits.

    ``make_window`` makes one of the arguments of ``Measured`` that follow the sender.
    """

    def __init__(self, sender: Sender, make_window: Callable[..., AnyWindow]) -> None:
        self._sender = sender
        self._make_window = make_window

    def window(
        self,
        /,
        request_id: str | None = None,
        *,
        gpus: Gpus = "auto",
        weight: float = 1.0,
        parent: Measured | str | None = None,
        iteration_driven: bool = False,
        **tags: object,
    ) -> AnyWindow:
        """Return a window, for ``with``, for ``@`` above a function, or started by hand.

        Args:
            request_id: The caller's name for it; need not be unique.
            gpus: Indices (as ``greenctl devices`` shows them), UUIDs, a list of
                those, or "auto": the GPUs that this process can see.
            weight: Claim on energy shared with other windows, 1e-3 to 1e6.
            parent: The window that it is a part of, or its id; by default the one
                in whose block it starts, else GREEND_PARENT_WINDOW; "": none.
            iteration_driven: Claim energy above the idle power only inside iterations;
                a window that an iteration names does so from then on.
            tags: At most 32, keys ``[a-z][a-z0-9_.]*``; values are turned into
                strings. The names above are taken and cannot be tags.
        """
        return self._make_window(request_id, gpus, weight, parent, tags, iteration_driven)

    def record(
        self,
        /,
        request_id: str | None = None,
        *,
        start_ns: int,
        stop_ns: int,
        first_token_ns: int | None = None,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        output_tokens: int | None = None,
        gpus: Gpus = "auto",
        weight: float = 1.0,
        parent: Measured | str | None = None,
        iteration_driven: bool = False,
        **tags: object,
    ) -> AnyWindow:
        """Tell of a window afterwards; return it, for its result.

        Instants are integers, nanoseconds of ``time.monotonic_ns``; where they are
        not, or turned round, or in the future, the window has no result. All else is
        as in ``window``; the names here are taken and cannot be tags.
        """
        window = self._make_window(request_id, gpus, weight, parent, tags, iteration_driven)
        window.tokens(prompt=prompt_tokens, cached=cached_tokens, output=output_tokens)
        window._happened(start_ns, stop_ns, first_token_ns)
        return window

    def iteration(
        self,
        start_ns: int,
        stop_ns: int,
        costs: Mapping[AnyWindow, float] | Mapping[str, float] | Mapping[AnyWindow | str, float],
        /,
    ) -> None:
        """Tell of a batch execution of an engine: which windows took part, at what cost.

        While it ran, the energy of its windows is shared out by cost, in any unit;
        overlapping ones share by weight. Instants are those of ``record``. A mistake is
        logged, the first one, and nothing of that iteration counts.

        Args:
            costs: By window, or by its id; 0 or more.
        """
        start, stop = known_ns(start_ns), known_ns(stop_ns)
        try:
            members: list[tuple[Record | str, object]] = [
                (member._record if isinstance(member, Measured) else member, cost)
                for member, cost in costs.items()
            ]
        except Exception as error:  # whatever the caller's object does
            self._sender.warn_of(
                GreendError(repr(error), grpc.StatusCode.INVALID_ARGUMENT),
                "an iteration is not told",
            )
            return
        if start is None or stop is None or not start < stop <= time.monotonic_ns() + AHEAD_NS:
            self._sender.warn_of(no_instant((start_ns, stop_ns)), "an iteration is not told")
            return
        self._sender.put(("iteration", start, None, Iteration(stop, members)))

    def stats(self) -> Stats:
        """Return what became of this client's windows so far."""
        return self._sender.stats()

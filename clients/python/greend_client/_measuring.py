"""How windows are asked for, of either client."""

from collections.abc import Mapping
from typing import Generic, TypeVar

from greend_client._gpus import Gpus
from greend_client._window import Measured

AnyWindow = TypeVar("AnyWindow", bound=Measured)


class Measuring(Generic[AnyWindow]):
    """Makes windows. Nothing here raises or waits."""

    def window(
        self,
        /,
        request_id: str | None = None,
        *,
        gpus: Gpus = "auto",
        weight: float = 1.0,
        parent: Measured | str | None = None,
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
            tags: At most 32, keys ``[a-z][a-z0-9_.]*``; values are turned into
                strings. The names above are taken and cannot be tags.
        """
        return self._make_window(
            request_id=request_id, gpus=gpus, weight=weight, parent=parent, tags=tags
        )

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
        **tags: object,
    ) -> AnyWindow:
        """Tell of a window afterwards; return it, for its result.

        Instants are integers, nanoseconds of ``time.monotonic_ns``; where they are
        not, or turned round, or in the future, the window has no result. All else is
        as in ``window``; the names here are taken and cannot be tags.
        """
        window = self.window(request_id, gpus=gpus, weight=weight, parent=parent, **tags)
        window.tokens(prompt=prompt_tokens, cached=cached_tokens, output=output_tokens)
        window._happened(start_ns, stop_ns, first_token_ns)
        return window

    def _make_window(
        self,
        *,
        request_id: str | None,
        gpus: Gpus,
        weight: float,
        parent: Measured | str | None,
        tags: Mapping[str, object],
    ) -> AnyWindow:
        raise NotImplementedError

"""Which windows belong to which session."""

from greend.errors import ResourceExhausted
from greend.metering.windows import ActiveWindow


class Owners:
    """Windows that are not final, by the digest of their session's secret.

    Those that were started without a secret are nobody's: they count together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._windows: dict[bytes, dict[str, ActiveWindow]] = {}

    def check_room(self, digest: bytes) -> None:
        """Raises ResourceExhausted if a session has as many as it may have."""
        count = len(self._windows.get(digest, ()))
        if count < self._most:
            return
        whose = "of this session" if digest else "without a session"
        raise ResourceExhausted(
            f"{count} windows {whose} are open or not final yet, the most that one may have:"
            " stop some first, or allow more ([metering] most_windows_per_session)"
        )

    def crowded(self, fraction: float) -> bool:
        """Whether a session has more than this fraction of those that it may have."""
        most = fraction * self._most
        return any(len(windows) > most for windows in self._windows.values())

    def add(self, active: ActiveWindow) -> None:
        """A window is there."""
        window = active.window
        self._windows.setdefault(window.token_digest, {})[window.window_id] = active

    def discard(self, active: ActiveWindow) -> None:
        """A window is final, or never was."""
        window = active.window
        owned = self._windows.get(window.token_digest, {})
        owned.pop(window.window_id, None)
        if not owned:
            self._windows.pop(window.token_digest, None)

    def of(self, digest: bytes) -> list[ActiveWindow]:
        """A session's windows."""
        return list(self._windows.get(digest, {}).values())

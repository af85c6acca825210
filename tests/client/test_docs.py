"""The snippets of docs/client.md run as they stand, one after the other."""

import re
from pathlib import Path

import pytest

from tests.client.memory_daemon import MemoryDaemon

PAGE = Path(__file__).parents[2] / "docs" / "client.md"


def test_the_snippets_of_the_page_run(
    address: str, daemon: MemoryDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREEND_ADDRESS", address)
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(snippets) >= 9
    exec(compile("\n".join(snippets), str(PAGE), "exec"), {"__name__": "page"})
    requests = {window.request_id for window in daemon.windows.values()}
    assert {"request-7", "request-8", "request-9", "a", "b", "generate"} <= requests

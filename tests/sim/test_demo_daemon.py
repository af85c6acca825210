import tempfile
from pathlib import Path

import pytest

from greend.demo.daemon import running_daemon
from greend.errors import Unavailable


def test_a_daemon_that_does_not_start_is_told_with_its_log_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        pytest.raises(Unavailable, match=r"ended at once \(exit status \d+\):\n  \S"),
        running_daemon("no-such-gpu"),
    ):
        pytest.fail("it cannot serve")
    assert list(tmp_path.iterdir()) == []

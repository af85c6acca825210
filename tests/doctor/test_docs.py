"""docs/checking.md: its comparison runs as it stands, and its list has all checks."""

import os
import re
import subprocess
import sys
from pathlib import Path

from greend.doctor.run import CHECKS
from tests.daemon import daemon
from tests.nvml_double import NvmlDouble

PAGE = (Path(__file__).parents[2] / "docs/checking.md").read_text()


def test_the_counter_read_beside_a_window_agrees_with_greend(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert "time.sleep(60)" in snippet
    seconds = 4
    with NvmlDouble(tmp_path, ["a100"]) as double:
        double.gpus[0].set_power_w(250.0)
        environment = os.environ | double.environment
        with daemon(environment=environment, devices=1) as running:
            out = subprocess.run(
                [sys.executable, "-c", snippet.replace("sleep(60)", f"sleep({seconds})")],
                env=environment | {"GREEND_ADDRESS": running.address},
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout
    counted_j, told_j = map(float, re.findall(r"([\d.]+) J", out))
    # A step at each end, as the page has it.
    assert abs(told_j - counted_j) <= 2 * 0.1 * 250.0
    assert told_j > 0.9 * seconds * 250.0


def test_the_example_has_all_checks_and_their_width() -> None:
    (example,) = re.findall(r"^```\n\$ greend doctor\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = example.splitlines()
    assert [line for line in lines if line in CHECKS] == list(CHECKS)
    assert max(map(len, lines)) <= 80

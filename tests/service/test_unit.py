"""The installed unit before systemd's own judgement."""

import re
import shutil

import pytest

from greend.service import files
from greend.service.interpreter import HOMES, own
from greend.service.places import Places
from tests.service.analyze import analyze

WORST = 3.0


def test_systemd_finds_no_fault_with_it(installed: Places) -> None:
    done = analyze("verify", str(installed.unit))
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_a_missing_interpreter(installed: Places) -> None:
    """The test above can fail."""
    installed.unit.write_text(
        installed.unit.read_text().replace("ExecStart=/", "ExecStart=/nonexistent/")
    )
    assert analyze("verify", str(installed.unit)).returncode != 0


@pytest.mark.parametrize("at_home", [False, True])
def test_its_exposure_is_low(installed: Places, at_home: bool) -> None:
    if at_home:
        installed.drop_ins.mkdir(exist_ok=True)
        installed.home.write_text(files.template("greend-home.conf"))
    else:
        shutil.rmtree(installed.drop_ins, ignore_errors=True)
    threshold = f"--threshold={WORST * 10:.0f}"
    done = analyze("security", "--offline=true", "--no-pager", threshold, str(installed.unit))
    assert done.returncode == 0, done.stdout
    (exposure,) = re.findall(r"exposure level for greend.service: ([\d.]+)", done.stdout)
    assert 0 < float(exposure) <= WORST


def test_a_greend_in_a_home_is_made_visible(installed: Places) -> None:
    assert installed.home.exists() == (own().found_in(HOMES) is not None)

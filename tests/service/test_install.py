"""`greend service` on files under a root: nothing of the running system is touched."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from greend import __version__
from greend.config import Settings, load, render
from greend.service.interpreter import HOMES, Interpreter
from greend.service.places import Places
from tests.integration.small_disk import small_disk
from tests.service.conftest import ENVIRONMENT, service


def contents(root: Path) -> dict[str, str]:
    """Every file under a root."""
    return {
        str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()
    }


def ours(places: Places) -> set[Path]:
    return {places.unit, places.sysusers, places.tmpfiles} | (
        {places.home} if places.home.exists() else set()
    )


@pytest.fixture
def other_python(tmp_path: Path) -> str:
    """Another environment that has greend."""
    environment = tmp_path / "a b%c"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "all.pth").write_text("\n".join(path for path in sys.path if path))
    return str(environment / "bin/python")


def test_install_says_what_it_wrote_and_writes_nothing_else(places: Places) -> None:
    done = service("install", "--root", str(places.root))
    assert done.returncode == 0
    written = ours(places) | {places.configuration}
    assert {places.root / name for name in contents(places.root)} == written
    assert all(f"wrote {path}\n" in done.stdout for path in written)


def test_install_again_changes_nothing_and_keeps_settings_and_data(installed: Places) -> None:
    installed.configuration.write_text("[metering]\nfast_hz = 50\n")
    installed.state_dir.mkdir(parents=True)
    (installed.state_dir / "greend.db").write_text("joules")
    before = contents(installed.root)
    done = service("install", "--root", str(installed.root))
    assert done.returncode == 0
    assert contents(installed.root) == before
    assert f"kept {installed.configuration}" in done.stdout
    assert "wrote" not in done.stdout


def test_the_first_configuration_decides_nothing(installed: Places) -> None:
    text = installed.configuration.read_text()
    assert load(installed.configuration, {}, {}) == Settings()
    assert all(section == {} for section in tomllib.loads(text).values())
    # Its lines, with the mark taken away, are the settings.
    uncommented = "\n".join(
        line.removeprefix("#") if " = " in line and line[1] != " " else line
        for line in text.splitlines()
    )
    assert tomllib.loads(uncommented) == tomllib.loads(render(Settings()))


def test_an_edited_unit_is_written_anew_and_an_administrators_drop_in_stays(
    installed: Places,
) -> None:
    wanted = installed.unit.read_text()
    installed.unit.write_text("[Service]\nExecStart=/bin/false\n")
    installed.drop_ins.mkdir(exist_ok=True)
    override = installed.drop_ins / "override.conf"
    override.write_text("[Service]\nNice=5\n")
    service("install", "--root", str(installed.root))
    assert installed.unit.read_text() == wanted
    assert override.read_text() == "[Service]\nNice=5\n"


def test_an_install_from_elsewhere_runs_that_greend(installed: Places, other_python: str) -> None:
    state = json.loads(service("status", "--json", "--root", str(installed.root)).stdout)
    assert (state["python"], state["outdated"]) == (sys.executable, [])
    service("install", "--root", str(installed.root), python=other_python)
    again = json.loads(service("status", "--json", "--root", str(installed.root)).stdout)
    assert (again["python"], again["version"]) == (other_python, __version__)
    assert (again["this_python"], again["this_version"]) == (sys.executable, __version__)
    assert str(installed.unit) in again["outdated"]
    told = service("status", "--root", str(installed.root)).stdout
    assert "this is: " in told
    assert f"An install from here would change: {installed.unit}" in told


def test_a_greend_that_left_the_home_directory_is_no_longer_let_in(installed: Places) -> None:
    """Where the tests' own Python lies in a home, its file stays."""
    installed.drop_ins.mkdir(exist_ok=True)
    installed.home.write_text("[Service]\nProtectHome=no\n")
    service("install", "--root", str(installed.root))
    assert not installed.home.exists() or "read-only" in installed.home.read_text()


def test_homes_are_told_from_other_places() -> None:
    python = Path("/opt/greend/bin/python")
    assert Interpreter(python, (python, Path("/usr/lib"))).found_in(HOMES) is None
    base = Path("/home/ada/.pyenv/bin/python")
    assert Interpreter(python, (python, base)).found_in(HOMES) == base
    assert Interpreter(python, (Path("/homeless/python"),)).found_in(HOMES) is None


def test_status_of_a_unit_whose_python_is_gone(installed: Places) -> None:
    text = installed.unit.read_text()
    installed.unit.write_text(text.replace(sys.executable, "/nonexistent/python"))
    state = json.loads(service("status", "--json", "--root", str(installed.root)).stdout)
    assert state["python"] == "/nonexistent/python"
    assert "version" not in state, "what is not known is absent"
    assert "(it does not run)" in service("status", "--root", str(installed.root)).stdout


def test_exit_codes_of_status_are_those_of_systemctl(places: Places) -> None:
    done = service("status", "--root", str(places.root))
    assert (done.returncode, done.stdout.count("\n")) == (4, 1)
    assert (
        json.loads(service("status", "--json", "--root", str(places.root)).stdout)["installed"]
        is False
    )
    service("install", "--root", str(places.root))
    assert service("status", "--root", str(places.root)).returncode == 3


def test_uninstall_leaves_data_and_settings(installed: Places) -> None:
    installed.state_dir.mkdir(parents=True)
    (installed.state_dir / "greend.db").write_text("joules")
    removed = ours(installed)
    done = service("uninstall", "--root", str(installed.root))
    assert done.returncode == 0
    assert all(f"removed {path}\n" in done.stdout for path in removed)
    assert f"left {installed.state_dir}\n" in done.stdout
    assert set(contents(installed.root)) == {"etc/greend/greend.toml", "var/lib/greend/greend.db"}
    again = service("uninstall", "--root", str(installed.root))
    assert (again.returncode, "not installed" in again.stdout) == (0, True)


def test_purge_asks_says_what_goes_and_removes_it(installed: Places) -> None:
    installed.state_dir.mkdir(parents=True)
    (installed.state_dir / "greend.db").write_text("joules")
    before = contents(installed.root)
    for answer in ("n\n", ""):
        done = service("uninstall", "--purge", "--root", str(installed.root), answer=answer)
        assert done.returncode == 1
        assert f"  {installed.state_dir}\n" in done.stdout
        assert contents(installed.root) == before
    done = service("uninstall", "--purge", "--root", str(installed.root), answer="y\n")
    assert done.returncode == 0
    assert contents(installed.root) == {}


def test_purge_with_yes_does_not_ask(installed: Places) -> None:
    done = service("uninstall", "--purge", "--yes", "--root", str(installed.root))
    assert (done.returncode, contents(installed.root)) == (0, {})


def test_purge_removes_a_link_to_the_data_and_says_where_they_are(
    installed: Places, tmp_path: Path
) -> None:
    data = tmp_path / "greend.db"
    data.write_text("joules")
    installed.state_dir.parent.mkdir(parents=True)
    installed.state_dir.symlink_to(tmp_path)
    done = service("uninstall", "--purge", "--yes", "--root", str(installed.root))
    assert (done.returncode, contents(installed.root)) == (0, {}), done.stderr
    assert f"left {tmp_path}" in done.stdout
    assert data.read_text() == "joules"


def test_purge_empties_a_file_system_that_is_mounted_for_the_data(installed: Places) -> None:
    installed.state_dir.parent.mkdir(parents=True)
    with small_disk(installed.state_dir, 1) as disk:
        (disk.seen_from_here / "greend.db").write_text("joules")
        (disk.seen_from_here / "lost+found").mkdir()
        done = service(
            *("uninstall", "--purge", "--yes", "--root", str(installed.root)), prefix=disk.prefix
        )
        assert done.returncode == 0, done.stderr
        assert list(disk.seen_from_here.iterdir()) == []
    assert f"emptied {installed.state_dir}, on which a file system is mounted\n" in done.stdout
    assert f"left {installed.state_dir}\n" in done.stdout
    assert contents(installed.root) == {}


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_without_root_it_says_how_to_get_it(command: str) -> None:
    # What is imported before keeps a Python that only root can read out of the matter.
    code = (
        "import os, sys, greend.service.install, greend.service.uninstall\n"
        "from greend.cli import main\n"
        "os.geteuid() or os.seteuid(65534)\n"
        f"sys.argv = ['greend', 'service', '{command}']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "needs root: sudo /" in done.stderr
    assert done.stderr.endswith(f"service {command}\n")
    assert done.stderr.count("\n") == 1


def test_a_root_that_cannot_be_is_refused(tmp_path: Path) -> None:
    missing = service("install", "--root", str(tmp_path / "none"))
    assert (missing.returncode, "does not exist" in missing.stderr) == (2, True)
    file = tmp_path / "file"
    file.touch()
    assert service("install", "--root", str(file)).returncode == 2


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("no directory")
    done = service("install", "--root", str(tmp_path))
    assert done.returncode == 1
    assert f"cannot write {tmp_path}/etc/" in done.stderr


def test_what_stands_in_the_units_place_is_no_service(places: Places) -> None:
    places.unit.mkdir(parents=True)
    assert service("status", "--root", str(places.root)).returncode == 4
    done = service("install", "--root", str(places.root))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"cannot write {places.unit}: " in done.stderr
    places.unit.rmdir()
    places.unit.parent.rmdir()
    places.unit.parent.touch()
    assert service("status", "--root", str(places.root)).returncode == 4
    done = service("install", "--root", str(places.root))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"cannot write {places.unit.parent}/greend.service" in done.stderr


def test_a_service_that_is_masked_stays_so(places: Places) -> None:
    places.unit.parent.mkdir(parents=True)
    places.unit.symlink_to("/dev/null")
    done = service("install", "--root", str(places.root))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "`systemctl unmask greend`" in done.stderr
    assert places.unit.readlink() == Path("/dev/null")
    assert contents(places.root) == {}
    assert service("status", "--root", str(places.root)).returncode == 4


def test_version_needs_nothing_of_the_service() -> None:
    code = (
        "import sys\n"
        "from greend.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "print(*(name for name in sys.modules if name.partition('.')[0] == 'greend'))\n"
        "print('msgspec' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True
    )
    _, modules, msgspec = done.stdout.splitlines()
    assert set(modules.split()) == {"greend", "greend.cli", "greend.service"} | {
        "greend.service.commands"
    }
    assert msgspec == "False"

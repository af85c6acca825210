"""Processes that fork, and measure before and after."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.client.memory_daemon import MemoryDaemon

# Longer than anything here may take: what does not end by then hangs.
HANGS_S = 60


def run(program: str, *arguments: str) -> tuple[str, str]:
    """What a program printed and logged, without what gRPC and Python log of forks."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "GRPC_ENABLE_FORK_SUPPORT"},
    )
    assert ended.returncode == 0, ended.stderr
    logged = [line for line in ended.stderr.splitlines() if line.startswith("greend: ")]
    return ended.stdout, "\n".join(logged)


def told(daemon: MemoryDaemon, beginning: str) -> int:
    """Windows that ended, by the beginning of their name."""
    return sum(
        window.state == "final" and window.request_id.startswith(beginning)
        for window in list(daemon.windows.values())
    )


def test_workers_of_a_prefork_server_measure_with_clients_of_their_own(
    address: str, daemon: MemoryDaemon
) -> None:
    program = """
        import os, sys, greend_client

        client = greend_client.Client(sys.argv[1])

        def serve(number):
            client = greend_client.Client(sys.argv[1])
            for request in range(50):
                with client.window(f"worker {number}", gpus=[0]) as window:
                    pass
            assert window.result(timeout=20).state == "final"
            sys.exit(0)  # as a worker ends that is told to

        with client.window("master", gpus=[0]) as window:
            pass
        window.result(timeout=20)
        workers = []
        for number in range(4):
            worker = os.fork()
            if worker == 0:
                serve(number)
            workers.append(worker)
            with client.window("master", gpus=[0]):
                pass
        for worker in workers:
            assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0
    """
    _, logged = run(program, address)
    assert (told(daemon, "worker"), told(daemon, "master")) == (200, 5)
    assert logged == ""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_measure_with_clients_of_their_own(
    address: str, daemon: MemoryDaemon, tmp_path: Path, method: str
) -> None:
    # Whose processes import where their work is from.
    (tmp_path / "work.py").write_text(
        textwrap.dedent(
            """
            import greend_client

            def work(address):
                with greend_client.Client(address) as client:
                    with client.window("worker", gpus=[0]) as window:
                        pass
                    return window.result(timeout=20).state
            """
        )
    )
    program = """
        import multiprocessing, sys
        sys.path.insert(0, sys.argv[3])
        import work

        if __name__ == "__main__":
            work.work(sys.argv[1])
            context = multiprocessing.get_context(sys.argv[2])
            with context.Pool(3) as pool:
                states = pool.map(work.work, [sys.argv[1]] * 6, chunksize=1)
            assert states == ["final"] * 6
            work.work(sys.argv[1])
    """
    _, logged = run(program, address, method, str(tmp_path))
    assert told(daemon, "worker") == 8
    assert logged == ""


def test_a_fork_with_calls_in_flight_hangs_nobody(address: str, daemon: MemoryDaemon) -> None:
    program = """
        import os, sys, threading, greend_client

        client = greend_client.Client(sys.argv[1])
        going, count = threading.Event(), 0
        going.set()

        def measure():
            global count
            while going.is_set():
                with client.window("master", gpus=[0]) as window:
                    count += 1
                window.result(timeout=20)

        watch = client.watch_samples()
        threads = [
            threading.Thread(target=measure),
            threading.Thread(target=lambda: list(watch)),
        ]
        for thread in threads:
            thread.start()
        for number in range(8):
            child = os.fork()
            if child == 0:
                with greend_client.Client(sys.argv[1]) as own:
                    with own.window("child", gpus=[0]) as window:
                        pass
                    window.result(timeout=20)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        going.clear()
        watch.close()
        for thread in threads:
            thread.join()
        client.close()
        print(count, client.stats().delivered)
    """
    printed, logged = run(program, address)
    count, delivered = map(int, printed.split())
    assert count == delivered == told(daemon, "master") > 8
    assert told(daemon, "child") == 8
    assert logged == ""


def test_a_watch_goes_on_after_a_fork_and_is_closed_in_the_child(address: str) -> None:
    program = """
        import os, sys, greend_client
        client = greend_client.Client(sys.argv[1])
        watch = client.watch_samples()
        next(watch)
        child = os.fork()
        if child == 0:
            try:
                next(watch)
            except greend_client.GreendError as error:
                print(error.code, flush=True)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print(bool(next(watch).device))
    """
    printed, _ = run(program, address)
    assert printed.split() == ["StatusCode.FAILED_PRECONDITION", "True"]


EARLIER = """
    import os, sys, time, grpc, greend_client
    client = greend_client.Client(sys.argv[1])
    if sys.argv[2] == "sent":
        with client.window("parent", gpus=[0]) as window:
            pass
        window.result(timeout=20)
    child = os.fork()
    if child == 0:
        begun = time.monotonic()
        with greend_client.Client(sys.argv[1]) as own:
            for number in range(3):
                with own.window("child", gpus=[0]) as window:
                    pass
            try:
                window.result()
            except greend_client.ResultUnavailable as error:
                print(error.code, own.stats().lost)
        print(time.monotonic() - begun < 10, flush=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with client.window("parent", gpus=[0]) as window:
        pass
    window.result(timeout=20)
"""


def test_where_grpc_was_imported_before_the_child_loses_its_windows_with_one_warning(
    address: str, daemon: MemoryDaemon
) -> None:
    printed, logged = run(EARLIER, address, "sent")
    assert printed.split() == ["StatusCode.FAILED_PRECONDITION", "3", "True"]
    (warning,) = logged.splitlines()
    assert "GRPC_ENABLE_FORK_SUPPORT=1" in warning
    assert (told(daemon, "parent"), told(daemon, "child")) == (2, 0)


def test_where_grpc_was_imported_before_but_nothing_sent_the_child_measures(
    address: str, daemon: MemoryDaemon
) -> None:
    printed, logged = run(EARLIER, address, "unsent")
    assert printed == "True\n"
    assert (told(daemon, "parent"), told(daemon, "child")) == (1, 3)
    assert logged == ""


def test_a_forked_child_loses_its_windows_with_one_warning_and_never_hangs(
    address: str,
) -> None:
    program = """
        import os, sys, greend_client
        client = greend_client.Client(sys.argv[1])
        with client.window("parent", gpus=[0]) as window:
            pass
        window.result(timeout=10)
        child = os.fork()
        if child == 0:
            for number in range(3):
                with client.window("child", gpus=[0]) as window:
                    pass
            try:
                window.result()
            except greend_client.ResultUnavailable as error:
                print(error, flush=True)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        with client.window("parent again", gpus=[0]) as window:
            pass
        print(window.result(timeout=10).request_id)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), address],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    refused, served = ended.stdout.splitlines()
    assert "forked" in refused
    assert served == "parent again"
    assert ended.stderr.count("a window is not measured") == 1

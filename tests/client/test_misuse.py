"""What callers do wrong costs their own windows only."""

import os
import subprocess
import sys
import textwrap

import pytest

from greend_client import Client, ResultUnavailable


def test_an_instant_that_is_no_integer_loses_its_window_and_no_other(
    address: str,
) -> None:
    with Client(address) as client:
        wrong = client.window("wrong", gpus=[0]).start()
        wrong.stop(at_ns=1.5)  # type: ignore[arg-type]
        with pytest.raises(ResultUnavailable, match="cannot be sent"):
            wrong.result(timeout=10)
        with client.window("right", gpus=[0]) as right:
            pass
        assert right.result(timeout=10).request_id == "right"


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
        env=os.environ | {"GRPC_ENABLE_FORK_SUPPORT": "1"},
    )
    refused, served = ended.stdout.splitlines()
    assert "forked" in refused
    assert served == "parent again"
    assert ended.stderr.count("a window is not measured") == 1

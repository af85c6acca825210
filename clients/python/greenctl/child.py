"""A child process that is as if it ran without us: streams, signals, exit code."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_BY_THE_TERMINAL = 0x80  # SI_KERNEL: sent to the whole foreground group, the child included
_SET_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # to be ignored; a child wants them as usual


class Held:
    """Signals that wait to be forwarded; threads made meanwhile leave them alone, too."""

    def __init__(self) -> None:
        # What is ignored (nohup) stays ignored, here and in the child.
        wanted = {s for s in _FORWARDED if signal.getsignal(s) is not signal.SIG_IGN}
        self.signals = wanted | {signal.SIGCHLD}
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.before = signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)

    def release(self) -> None:
        """Let signals through again; those that came too late for the child are dropped."""
        while signal.sigtimedwait(self.signals, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self.before)


@contextmanager
def signals_held() -> Iterator[Held]:
    """Hold the signals back that are to be forwarded to a child."""
    held = Held()
    try:
        yield held
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held.before)


def run(command: tuple[str, ...], environment: Mapping[str, str], held: Held) -> tuple[int, str]:
    """Run a command to its end; return its exit code as a shell would, and what went wrong."""
    try:
        pid = os.posix_spawnp(
            command[0],
            command,
            environment,
            setsigmask=held.before,
            setsigdef=_SET_BY_PYTHON,
        )
    except (FileNotFoundError, ValueError):  # ValueError: an empty name
        return 127, f"{command[0]}: command not found"
    except OSError as error:
        return 126, f"{command[0]}: {error.strerror}"
    code = _wait(pid, held.signals)
    return (128 - code if code < 0 else code), ""


def _wait(pid: int, signals: set[signal.Signals]) -> int:
    while True:
        news = signal.sigwaitinfo(signals)
        if news.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
        elif news.si_code != _BY_THE_TERMINAL:
            os.kill(pid, news.si_signo)

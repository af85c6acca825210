"""Puts back the limits that greend set on GPUs, for a daemon that cannot any more.

Standard library only: it runs when something else went wrong.
"""

from pathlib import Path

from greend.errors import FailedPrecondition

# What will be set is written here before it is set (DESIGN.md, rules of the host, 3).
INTENTS_NAME = "intents.json"


def restore(state_dir: Path) -> str:
    """Returns what was done. This version sets no limits: there is nothing to put back.

    Raises FailedPrecondition if another version left limits behind, or if nobody can tell.
    """
    path = state_dir / INTENTS_NAME
    try:
        path.lstat()
    except FileNotFoundError:
        return f"nothing to restore: there is no {path}"
    except OSError as error:
        raise FailedPrecondition(
            f"cannot look for {path} ({error.strerror}): run as root, or name the daemon's"
            " directory with --state-dir"
        ) from None
    raise FailedPrecondition(
        f"{path} says that another version of greend set limits on GPUs, which this version"
        " cannot put back: run `greend restore` of that version; or reset the clocks with"
        " `nvidia-smi --reset-gpu-clocks --reset-memory-clocks`, check the power limits with"
        " `nvidia-smi --query-gpu=power.limit,power.default_limit --format=csv`, and remove the"
        " file"
    )

"""`sh scripts/bench [PART]`: all parts, or one."""

import importlib
import sys
import time

PARTS = {
    "accuracy": "isolated windows beside the truth",
    "ledger": "a start or stop with 10 to 10 000 windows open on each of 8 devices",
    "cost": "CPU, wake-ups and memory beside bare loops of the same reads; 20 minutes",
    "scrape": "a Prometheus scrape of 8 devices at the bound on series",
    "durable": "the daemon's CPU a durable window, at 1000 to all the windows a second it takes",
    "history": "StartWindow while 500 MB of history are backed up and pruned",
    "hotpath": "a `with client.window(...)` block beside its floor and beside Zeus",
    "outage": "the daemon killed under 1000 windows a second, and away for a minute",
    "rpc": "StartWindow and StopWindow beside an RPC that makes one equal commit",
}


def main() -> None:
    """Runs the parts that are named."""
    parts = sys.argv[1:] or list(PARTS)
    for part in parts:
        if part not in PARTS:
            known = "\n".join(f"  {name}: {what}" for name, what in PARTS.items())
            sys.exit(f"bench: no part {part!r}; there are:\n{known}")
    for part in parts:
        print(f"== {part}: {PARTS[part]}", flush=True)
        begun = time.monotonic()
        importlib.import_module(f"benchmarks.{part}").main()
        print(f"   ({time.monotonic() - begun:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()

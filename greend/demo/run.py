"""Runs the demo from start to end."""

import json as json_module
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from greend import errors
from greend.demo import tables
from greend.demo.daemon import running_daemon
from greend.demo.ledger import Account, Mark, growth, mark
from greend.demo.replay import Engines, Served
from greend.demo.report import Report, RequestRow, document
from greend.demo.truth import Interval, fair_shares, pieces
from greend.demo.workload import MODELS, Request, draw_requests, peak, plan
from greend.model import NS_PER_S
from greend.rpc.simulator import SimulatorClient
from greend_client import Client, GreendError, ResultUnavailable, WindowResult

RESULT_S = 5.0
_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM


def run_demo(
    *,
    requests: int = 40,
    seconds: float = 8.0,
    json: bool = False,
    console_width: int | None = None,
) -> int:
    """Serves `requests` simulated requests within about `seconds`, measured by greend.

    Prints tables, or one JSON document. Returns the exit status: 0 when greend
    answered for every request, 1 when something failed, 130 after Ctrl-C.
    """
    console = Console(width=console_width)
    to_user = Console(stderr=True)
    try:
        with _ended_by_sigterm():
            report = _run(draw_requests(requests, seconds), to_user)
    except KeyboardInterrupt:
        to_user.print("interrupted: the demo's daemon is ended, its data removed")
        return _INTERRUPTED
    except (errors.GreendError, GreendError) as error:
        to_user.print(f"greend demo: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    if json:
        json_module.dump(document(report), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        tables.show(report, console)
    return 0 if report.complete else 1


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM unwind the stack, so that the daemon does not outlive the demo."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(requests: Sequence[Request], to_user: Console) -> Report:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = not to_user.is_terminal
    with Progress(*columns, console=to_user, transient=True, disable=hidden) as progress:
        task = progress.add_task("starting greend", total=len(requests))
        with running_daemon(f"h100x{len(MODELS)}") as address:
            simulator = SimulatorClient(address)
            client = Client(address)
            try:
                devices = simulator.devices()
                engines = Engines(client, simulator, devices)
                progress.update(task, description="warming up")
                engines.warm_up()
                begin = mark(client)
                progress.update(task, description="serving requests")
                events = plan(requests)
                served = engines.run(events, lambda ended: progress.advance(task, ended))
                progress.update(task, description="reading results")
                results = {one.request.request_id: _result(one) for one in served}
                end = mark(client)
                return Report(
                    requests=_rows(served, results, devices, simulator),
                    ledger=_accounts(begin, end, devices, simulator),
                    peak_requests=peak(events),
                    duration_s=events[-1].at_s if events else 0.0,
                )
            finally:
                client.close()
                simulator.close()


def _result(served: Served) -> WindowResult | None:
    try:
        return served.window.result(timeout=RESULT_S)
    except ResultUnavailable:
        return None  # shown as a row without energy


def _rows(
    served: Iterable[Served],
    results: Mapping[str, WindowResult | None],
    devices: Sequence[str],
    simulator: SimulatorClient,
) -> Sequence[RequestRow]:
    by_name = {one.request.request_id: one for one in served}
    intervals = {name: _interval(one, results[name]) for name, one in by_name.items()}
    truths_j: dict[str, float] = {}
    for gpu, device in enumerate(devices):
        mine = {name: intervals[name] for name, one in by_name.items() if one.request.gpu == gpu}
        drawn_j = partial(_drawn_j, simulator, device)
        truths_j.update(fair_shares(pieces(mine), drawn_j))
    return [
        _row(by_name[name].request, results[name], intervals[name], truths_j[name])
        for name in sorted(by_name, key=lambda name: by_name[name].request.arrival_s)
    ]


def _interval(served: Served, result: WindowResult | None) -> Interval:
    # The instants that greend was given, where it has them.
    if result is None or result.stop_unix_ns is None:
        return Interval(served.start_unix_ns, served.stop_unix_ns)
    return Interval(result.start_unix_ns, result.stop_unix_ns)


def _drawn_j(simulator: SimulatorClient, device: str, start_ns: int, stop_ns: int) -> float:
    return simulator.truth(device, start_ns, stop_ns).energy_j


def _row(
    request: Request,
    result: WindowResult | None,
    interval: Interval,
    truth_j: float,
) -> RequestRow:
    return RequestRow(
        request_id=request.request_id,
        model=request.model,
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        duration_s=(interval.stop_ns - interval.start_ns) / NS_PER_S,
        energy_j=result.energy_j if result else None,
        idle_energy_j=result.idle_energy_j if result else None,
        uncertainty_j=result.uncertainty_j if result else None,
        truth_j=truth_j,
        flags=result.flags if result else (),
    )


def _accounts(
    begin: Mapping[str, Mark],
    end: Mapping[str, Mark],
    devices: Sequence[str],
    simulator: SimulatorClient,
) -> Sequence[Account]:
    return [
        growth(
            begin[device],
            end[device],
            _drawn_j(simulator, device, begin[device].unix_ns, end[device].unix_ns),
        )
        for device in devices
        if device in begin and device in end
    ]

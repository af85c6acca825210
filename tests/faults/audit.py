"""What is stored, compared with what clients told and heard."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from tests.daemon import Daemon
from tests.faults.journal import Journal, Told

AMOUNTS = ("measured", "windows", "idle", "unattributed", "gap")


def rows_by_id(running: Daemon) -> dict[str, dict[str, Any]]:
    """The stored windows."""
    rows = running.rows("select * from windows")
    by_id = {row["window_id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id


def check_acknowledged(running: Daemon, journals: Iterable[Journal]) -> int:
    """Every acknowledged window is there once, as it was told; returns their number.

    Nothing is there that nobody told, and what is final is what clients heard.
    """
    journals = list(journals)
    rows = rows_by_id(running)
    ids = {window_id for journal in journals for window_id in journal.windows}
    assert rows.keys() <= ids, "windows that nobody told"
    return check_told(rows, journals)


def check_told(rows: dict[str, dict[str, Any]], journals: Iterable[Journal]) -> int:
    """Every acknowledged window is there as it was told; returns their number."""
    count = 0
    for journal in journals:
        for told in journal.windows.values():
            if journal.has_start(told):
                assert told.window_id in rows, f"{told} is acknowledged and not stored"
                _check_row(rows[told.window_id], told, journal)
                count += 1
        for window_id, heard in journal.finals.items():
            _check_final(rows[window_id], heard)
    return count


def _check_row(row: dict[str, Any], told: Told, journal: Journal) -> None:
    assert row["request_id"] == told.request_id
    assert json.loads(row["tags"]) == told.tags
    if told.devices:
        assert set(json.loads(row["devices"])) == set(told.devices)
    if not journal.has_stop(told) or "abandoned" in json.loads(row["flags"]):
        return  # its end was not told, or too late
    assert row["state"] in ("stopped", "final")
    # Exact where no wall clock was set meanwhile: both are Unix time by one offset.
    assert told.stop_ns is not None
    assert row["stop_unix_ns"] - row["start_unix_ns"] == told.stop_ns - told.start_ns
    assert row["output_tokens"] == told.output_tokens


def _check_final(row: dict[str, Any], heard: dict[str, Any]) -> None:
    assert row["state"] == "final"
    assert (row["start_unix_ns"], row["stop_unix_ns"] or 0) == (
        heard["start_unix_ns"],
        heard["stop_unix_ns"],
    )
    # What was heard also has those of its shares.
    assert set(json.loads(row["flags"])) <= set(heard["flags"])
    if heard["energy_j"] is not None:
        assert row["own_mj"] / 1e3 == pytest.approx(heard["energy_j"], rel=1e-9)


def check_conserved(running: Daemon) -> dict[str, dict[str, float]]:
    """Windows + idle + unattributed + gap = measured on each device; returns the sums in mJ."""
    sums: dict[str, dict[str, float]] = {}
    for row in running.rows("select * from minutes"):
        total = sums.setdefault(row["device"], dict.fromkeys(AMOUNTS, 0.0))
        for name in AMOUNTS:
            total[name] += row[f"{name}_mj"]
    assert sums, "no minute was stored"
    for device, total in sums.items():
        booked = sum(amount for name, amount in total.items() if name != "measured")
        assert booked == pytest.approx(total["measured"], rel=1e-9), device
        # What a late event takes is given back to the same minute: sums of rounded numbers.
        assert min(total.values()) >= -1e-6, device
    return sums


def check_shares(running: Daemon, sums: dict[str, dict[str, float]]) -> None:
    """What windows got by their own rows is what the minutes say that windows got."""
    got = dict.fromkeys(sums, 0.0)
    for row in running.rows("select shares from windows"):
        for device, share in json.loads(row["shares"]).items():
            got[device] += share[0] + share[1]
    for device, total in sums.items():
        assert got[device] == pytest.approx(total["windows"], rel=1e-9), (device, got, total)


def check_nothing_open(running: Daemon) -> None:
    """Every stored window is final."""
    states = Counter(row["state"] for row in running.rows("select state from windows"))
    assert states.keys() <= {"final"}, states

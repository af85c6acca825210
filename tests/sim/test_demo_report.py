import io
import json

import pytest
from rich.cells import cell_len
from rich.console import Console

from greend.demo.ledger import Account
from greend.demo.report import Report, RequestRow, document
from greend.demo.tables import show


def row(number: int, energy_j: float | None, truth_j: float = 100.0) -> RequestRow:
    return RequestRow(
        request_id=f"req-{number:02d}",
        model="llama-3-8b" if number % 2 else "mistral-7b",
        prompt_tokens=2048,
        output_tokens=50,
        duration_s=12.345,
        energy_j=energy_j,
        idle_energy_j=None,
        uncertainty_j=None,
        truth_j=truth_j,
        flags=("simulated",),
    )


def report(*rows: RequestRow) -> Report:
    account = Account(
        device="GPU-51a2b3c4-0000-5000-8000-000000000000",
        measured_j=12345.6,
        windows_j=12000.0,
        idle_j=300.0,
        unattributed_j=45.6,
        gap_j=0.0,
        truth_j=12350.0,
    )
    return Report(requests=rows, ledger=[account, account], peak_requests=16, duration_s=8.2)


def shown(found: Report) -> str:
    console = Console(file=io.StringIO(), width=80)
    show(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_is_shown_fits_in_80_columns_and_is_marked_simulated() -> None:
    text = shown(report(*(row(number, 1234.5, 1200.0) for number in range(40))))
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "…" not in text.split("Ledger")[0], "a figure was cut off"
    assert text.count("simulated") >= 3
    assert text.count("req-") == 40
    assert "+2.88" in text


def test_long_runs_show_the_first_40_rows_and_say_how_many_more_there_are() -> None:
    text = shown(report(*(row(number, 100.0) for number in range(45))))
    assert text.count("req-") == 40
    assert "and 5 more" in text


def test_a_request_without_an_answer_is_shown_without_energy_and_left_out_of_sums() -> None:
    found = report(row(1, 110.0), row(3, None))
    assert not found.complete
    assert "No energy came for 1 of 2 requests" in shown(found)
    (model,) = found.models
    assert (model.count, model.energy_j, model.truth_j) == (1, 110.0, 100.0)
    assert found.mean_absolute_error_percent == pytest.approx(10.0)


def test_sums_by_model_are_over_its_requests() -> None:
    found = report(row(1, 110.0), row(2, 50.0), row(3, 80.0))
    llama, mistral = found.models
    assert (llama.model, llama.count, llama.energy_j) == ("llama-3-8b", 2, 190.0)
    assert llama.joules_per_request == 95.0
    assert llama.joules_per_output_token == pytest.approx(1.9)
    assert mistral.error_percent == pytest.approx(-50.0)


def test_the_document_is_json_and_says_that_it_is_simulated() -> None:
    said = json.loads(json.dumps(document(report(row(1, 110.0), row(2, None)))))
    assert said["simulated"] is True
    assert said["requests"][0]["error_percent"] == pytest.approx(10.0)
    assert said["requests"][1]["energy_j"] is None
    assert [entry["model"] for entry in said["models"]] == ["llama-3-8b"]
    assert said["ledger"][0]["measured_j"] == 12345.6

"""The demo's figures, each beside the simulator's truth. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from greend.demo.ledger import Account


def error_percent(figure: float | None, truth: float) -> float | None:
    """How far a figure is from the truth, in percent of it."""
    return None if figure is None or truth == 0 else 100 * (figure - truth) / truth


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request; `energy_j` is greend's, None where greend has no answer."""

    request_id: str
    model: str
    prompt_tokens: int
    output_tokens: int
    duration_s: float
    energy_j: float | None
    idle_energy_j: float | None
    uncertainty_j: float | None
    truth_j: float
    flags: tuple[str, ...]

    @property
    def joules_per_output_token(self) -> float | None:
        """Energy by output token."""
        return None if self.energy_j is None else self.energy_j / self.output_tokens

    @property
    def error_percent(self) -> float | None:
        """Error of `energy_j` in percent of the truth."""
        return error_percent(self.energy_j, self.truth_j)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """The measured requests of one model together."""

    model: str
    count: int
    output_tokens: int
    energy_j: float
    truth_j: float

    @property
    def joules_per_request(self) -> float:
        """Mean energy of a request."""
        return self.energy_j / self.count

    @property
    def joules_per_output_token(self) -> float:
        """Energy by output token."""
        return self.energy_j / self.output_tokens

    @property
    def error_percent(self) -> float | None:
        """Error of `energy_j` in percent of the truth."""
        return error_percent(self.energy_j, self.truth_j)


@dataclass(frozen=True, slots=True)
class Report:
    """All that the demo found."""

    requests: Sequence[RequestRow]
    ledger: Sequence[Account]
    peak_requests: int
    duration_s: float

    @property
    def models(self) -> Sequence[ModelRow]:
        """Sums by model."""
        return summarize(self.requests)

    @property
    def complete(self) -> bool:
        """Whether greend answered for every request."""
        return all(row.energy_j is not None for row in self.requests)

    @property
    def mean_absolute_error_percent(self) -> float | None:
        """Mean over requests of the absolute error."""
        errors = [abs(row.error_percent) for row in self.requests if row.error_percent is not None]
        return math.fsum(errors) / len(errors) if errors else None


def summarize(rows: Iterable[RequestRow]) -> Sequence[ModelRow]:
    """Sums by model of the requests that greend has answers for."""
    by_model: dict[str, list[RequestRow]] = {}
    for row in rows:
        if row.energy_j is not None:
            by_model.setdefault(row.model, []).append(row)
    return [
        ModelRow(
            model=model,
            count=len(members),
            output_tokens=sum(row.output_tokens for row in members),
            energy_j=math.fsum(row.energy_j or 0.0 for row in members),
            truth_j=math.fsum(row.truth_j for row in members),
        )
        for model, members in sorted(by_model.items())
    ]


def document(report: Report) -> dict[str, Any]:
    """The report as one JSON document; field names as in the messages."""
    return {
        "simulated": True,
        "duration_s": report.duration_s,
        "peak_requests": report.peak_requests,
        "mean_absolute_error_percent": report.mean_absolute_error_percent,
        "requests": [
            {
                **asdict(row),
                "joules_per_output_token": row.joules_per_output_token,
                "error_percent": row.error_percent,
            }
            for row in report.requests
        ],
        "models": [
            {
                **asdict(row),
                "joules_per_request": row.joules_per_request,
                "joules_per_output_token": row.joules_per_output_token,
                "error_percent": row.error_percent,
            }
            for row in report.models
        ],
        "ledger": [
            {**asdict(row), "error_percent": error_percent(row.measured_j, row.truth_j)}
            for row in report.ledger
        ],
    }

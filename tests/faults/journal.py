"""What a client process wrote down of what it sent and heard: a line a fact.

A line is written by one write, so that it survives the death of the process.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Pen:
    """Writes a journal."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, what: str, **facts: Any) -> None:
        os.write(self._file, json.dumps({"what": what} | facts).encode() + b"\n")


@dataclass
class Told:
    """A window as its client told it; the stop is absent where none was told.

    greend_client tells nobody the numbers of events; costs are what its caller paid.
    """

    window_id: str
    request_id: str
    tags: dict[str, str]
    start_ns: int
    devices: list[str] = field(default_factory=list)
    start_sequence: int | None = None
    cost_ns: int = 0
    stop_ns: int | None = None
    stop_sequence: int | None = None
    stop_cost_ns: int = 0
    output_tokens: int | None = None


@dataclass
class Journal:
    """What is written in one."""

    windows: dict[str, Told] = field(default_factory=dict)
    acknowledged: int = 0
    finals: dict[str, dict[str, Any]] = field(default_factory=dict)
    # By sequence number: code and message.
    refusals: dict[int, tuple[str, str]] = field(default_factory=dict)
    # Windows that will never have a result, by id: code and message.
    unavailable: dict[str, tuple[str, str]] = field(default_factory=dict)
    connections: int = 0
    done: bool = False

    @classmethod
    def read(cls, path: Path) -> "Journal":
        journal = cls()
        for line in path.read_text().splitlines() if path.exists() else []:
            facts = json.loads(line)
            journal._take(facts.pop("what"), facts)
        return journal

    def has_start(self, told: Told) -> bool:
        """Whether the daemon acknowledged that the window began."""
        return told.window_id in self.finals or self._acknowledged(told.start_sequence)

    def has_stop(self, told: Told) -> bool:
        """Whether the daemon acknowledged that the window ended."""
        return told.window_id in self.finals or self._acknowledged(told.stop_sequence)

    def _acknowledged(self, sequence: int | None) -> bool:
        return (
            sequence is not None and sequence <= self.acknowledged and sequence not in self.refusals
        )

    def _take(self, what: str, facts: dict[str, Any]) -> None:
        match what:
            case "start":
                self.windows[facts["window_id"]] = Told(**facts)
            case "stop":
                told = self.windows[facts.pop("window_id")]
                for name, value in facts.items():
                    setattr(told, name, value)
            case "acknowledged":
                assert facts["sequence"] >= self.acknowledged, "an acknowledgement was taken back"
                self.acknowledged = facts["sequence"]
            case "final":
                before = self.finals.setdefault(facts["window_id"], facts)
                assert before == facts, "what is final has changed"
            case "refused":
                self.refusals[facts["sequence"]] = facts["code"], facts["message"]
            case "unavailable":
                self.unavailable[facts["window_id"]] = facts["code"], facts["message"]
            case "connected":
                self.connections += 1
            case "done":
                self.done = True

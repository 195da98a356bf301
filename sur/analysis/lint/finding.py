"""The findings of a check, and the report on a whole data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

NOT_ASKED = "not asked for"  # why a check was skipped that the options leave out


@dataclass(frozen=True)
class Finding:
    """One fault. rows: ids (hex) of all rows concerned. leave_out: ids of the rows without which the fault is gone."""

    check: str
    message: str
    remedy: str
    rows: tuple[str, ...]
    leave_out: tuple[str, ...]


@dataclass(frozen=True)
class LintReport:
    """All findings. checked: checks that ran, and how. skipped: checks that did not run, and why."""

    source: str
    rows: int
    findings: tuple[Finding, ...]
    checked: dict[str, str]
    skipped: dict[str, str]

    @property
    def leave_out(self) -> dict[str, str]:
        """Ids to leave out, each with the checks that name it."""
        reasons: dict[str, list[str]] = {}
        for finding in self.findings:
            for row in finding.leave_out:
                if finding.check not in reasons.setdefault(row, []):
                    reasons[row].append(finding.check)
        return {row: ", ".join(checks) for row, checks in reasons.items()}

    def not_run(self, asked: Iterable[str]) -> list[tuple[str, str]]:
        """The checks that were asked for by name and did not run, each with the reason; all, where none ran at all."""
        names = set(asked)
        return [
            (name, why) for name, why in self.skipped.items() if name in names or not (self.checked or why == NOT_ASKED)
        ]

    def to_json(self) -> dict:
        """The report as plain JSON."""
        return asdict(self) | {"leave_out": self.leave_out}

"""The findings of a check, and the report on a whole data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass


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

    def to_json(self) -> dict:
        """The report as plain JSON."""
        return asdict(self) | {"leave_out": self.leave_out}

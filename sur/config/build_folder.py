"""The folder of a build (`sur build`): every file and folder in it by name.

<run_dir>/config.yaml            resolved settings of the newest build
<run_dir>/texts.jsonl            every text that a model wrote
<run_dir>/draft.jsonl            what one stage hands to the next; removed when the rows are written
<run_dir>/quarantine.jsonl       rows that were left out, with the reason
<run_dir>/summary.json           number of rows, and of rows left out by each filter
<run_dir>/data/                  the SURD folder that is built: metadata.jsonl, provenance.jsonl, models.json, images/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BuildFolder:
    """Places in a build's folder; nothing here creates them."""

    path: Path

    @property
    def texts(self) -> Path:
        """Log of the texts that models wrote, JSON lines."""
        return self.path / "texts.jsonl"

    @property
    def draft(self) -> Path:
        """Candidates between two stages, JSON lines."""
        return self.path / "draft.jsonl"

    @property
    def quarantine(self) -> Path:
        """Rows that were left out, JSON lines."""
        return self.path / "quarantine.jsonl"

    @property
    def summary(self) -> Path:
        """Counts of the newest build, JSON."""
        return self.path / "summary.json"

    @property
    def data(self) -> Path:
        """The SURD folder, for data.path of a run."""
        return self.path / "data"

    @property
    def metadata(self) -> Path:
        """The rows, JSON lines."""
        return self.data / "metadata.jsonl"

    @property
    def provenance(self) -> Path:
        """Origin of each row, JSON lines."""
        return self.data / "provenance.jsonl"

    @property
    def models(self) -> Path:
        """The models that wrote texts, JSON."""
        return self.data / "models.json"

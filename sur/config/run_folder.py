"""The folder of a run: every file and folder in it by name.

<run_dir>/config.yaml                resolved settings of the newest command
<run_dir>/quarantine.jsonl           rows that were left out, with the reason
<run_dir>/store.zarr                 the feature cache, unless store.path says otherwise
<run_dir>/manifest.safetensors       rows that the training began with
<run_dir>/checkpoints/step-000200/   adapter and state of one step
<run_dir>/curves.jsonl               losses, one line a logged step
<run_dir>/trackers/                  files of TensorBoard and other trackers
<run_dir>/samples/step-000200.png    pictures drawn while training
<run_dir>/adapter/                   the trained adapter
<run_dir>/pictures/                  pictures drawn by evaluations
<run_dir>/evaluation.json            scores; <run_dir>/report.html and before-after.png show them
<run_dir>/timings.json               seconds of each stage
<run_dir>/sweep/                     runs of a sweep and their comparison
<run_dir>/candidates/0001/           trainings of the nightly flow; promotions.jsonl has the verdicts
<run_dir>/promoted                   link to the adapter in use
<run_dir>/prefect/                   home of the run's own Prefect server
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Places in a run's folder; nothing here creates them."""

    path: Path

    @property
    def config(self) -> Path:
        """Resolved settings."""
        return self.path / "config.yaml"

    @property
    def quarantine(self) -> Path:
        """Rows that were left out, JSON lines."""
        return self.path / "quarantine.jsonl"

    @property
    def manifest(self) -> Path:
        """Rows that the training began with."""
        return self.path / "manifest.safetensors"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def curves(self) -> Path:
        """Losses, JSON lines."""
        return self.path / "curves.jsonl"

    @property
    def trackers(self) -> Path:
        """Folder of the trackers' files."""
        return self.path / "trackers"

    @property
    def samples(self) -> Path:
        """Folder of the pictures drawn while training."""
        return self.path / "samples"

    @property
    def adapter(self) -> Path:
        """Folder of the trained adapter."""
        return self.path / "adapter"

    @property
    def pictures(self) -> Path:
        """Folder of the pictures that evaluations drew."""
        return self.path / "pictures"

    @property
    def evaluation(self) -> Path:
        """Scores of the newest evaluation, JSON."""
        return self.path / "evaluation.json"

    @property
    def scores(self) -> Path:
        """Every single score of the newest evaluation, JSON lines."""
        return self.path / "evaluation.jsonl"

    @property
    def report(self) -> Path:
        """Report of the newest evaluation."""
        return self.path / "report.html"

    @property
    def grid(self) -> Path:
        """Picture of examples without and with the adapter."""
        return self.path / "before-after.png"

    @property
    def timings(self) -> Path:
        """Seconds of each stage, JSON."""
        return self.path / "timings.json"

    @property
    def sweep(self) -> Path:
        """Folder of a sweep's runs and their comparison."""
        return self.path / "sweep"

    @property
    def candidates(self) -> Path:
        """Folder of the nightly flow's trainings."""
        return self.path / "candidates"

    @property
    def promotions(self) -> Path:
        """Verdicts on the candidates, JSON lines."""
        return self.path / "promotions.jsonl"

    @property
    def promoted(self) -> Path:
        """Link to the adapter in use."""
        return self.path / "promoted"

    @property
    def prefect(self) -> Path:
        """Home of the run's own Prefect server."""
        return self.path / "prefect"

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint of a step."""
        return self.checkpoints / f"step-{step:06d}"

    def latest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint, None when there is none."""
        found = self.checkpoints.glob("step-*") if self.checkpoints.is_dir() else ()
        return max(found, key=step_of, default=None)

    def last_step(self) -> int:
        """Step of the newest checkpoint, 0 when there is none."""
        newest = self.latest_checkpoint()
        return 0 if newest is None else step_of(newest)


def step_of(checkpoint: Path) -> int:
    """Step of a checkpoint by its folder's name."""
    return int(checkpoint.name.removeprefix("step-"))

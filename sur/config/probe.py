"""Settings of `sur probe`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SPLITS = ("words", "rows")  # kinds of held-back rows; a store with few rare words has the second alone


class ProbeConfig(BaseModel):
    """Rows, folds and target of the probe, and how its ridge regressions are fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = Field(default=None, description="Slug of the text encoder; none: the store's only one.")
    target: Literal["auto", "readout", "mean"] = Field(
        default="auto",
        description="Vector of the complex prompt that is predicted: the denoiser's read-out of its states (which "
        "training aligns), or the mean of its states; auto: the read-out if the store has it.",
    )
    max_rows: int = Field(default=20_000, ge=1, description="Rows that take part; of more rows, this many are drawn.")
    folds: int = Field(
        default=5, ge=3, description="Folds, each held back in turn; a fold's penalty is chosen on the others."
    )
    rare_share: float = Field(
        default=0.025, gt=0, lt=1, description="Words in at most this share of the rows may be held back."
    )
    held_share: float = Field(
        default=0.25, gt=0, lt=1, description="Words are held back until a fold has this share of the rows."
    )
    held_rows: int = Field(default=1000, ge=8, description="Held-back rows of each fold that are scored, at most.")
    width: int = Field(default=1024, ge=1, description="Numbers to which wider features are projected at random.")
    target_width: int = Field(default=256, ge=1, description="Numbers to which wider targets are projected at random.")
    batch_rows: int = Field(default=256, ge=8, description="Rows read at a time; also the minibatches of CKA.")
    resamples: int = Field(default=1000, ge=100, description="Bootstrap resamples.")
    seed: int = Field(
        default=0, ge=0, description="Seed of the folds, random projections, order of rows and bootstrap."
    )

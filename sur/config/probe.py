"""Settings of a probe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SPLITS = ("words", "rows")  # what is held back; a store with few rare words has the second alone


class ProbeConfig(BaseModel):
    """What is held back, what is predicted, and how the ridge regressions are fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = Field(default=None, description="slug of the text encoder; none: the store's only one")
    target: Literal["auto", "readout", "mean"] = Field(
        default="auto",
        description="what is predicted of the complex prompt: what the denoiser's cached queries read out of its "
        "states (what training aligns), or the mean of its states; auto: the read-out where the store has it",
    )
    max_rows: int = Field(default=20_000, ge=1, description="rows that take part; of more, this many are drawn")
    folds: int = Field(default=5, ge=3, description="parts held back in turn; a part's penalty is chosen on the others")
    rare_share: float = Field(
        default=0.025, gt=0, lt=1, description="words in at most this share of the rows may be held back"
    )
    held_share: float = Field(
        default=0.25, gt=0, lt=1, description="words are held back until a fold has this share of the rows"
    )
    held_rows: int = Field(default=1000, ge=8, description="held-back rows of each fold that are judged, at most")
    width: int = Field(default=1024, ge=1, description="wider features are projected at random to this many numbers")
    target_width: int = Field(default=256, ge=1, description="wider targets are projected at random to this many")
    batch_rows: int = Field(default=256, ge=8, description="rows read at a time; also the minibatches of CKA")
    resamples: int = Field(default=1000, ge=100, description="bootstrap resamples")
    seed: int = Field(default=0, ge=0, description="of folds, projections, order of rows and bootstrap")

"""All checks of a store, or of a data source before extraction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sur.analysis.lint import safety
from sur.analysis.lint.finding import NOT_ASKED, Finding, LintReport
from sur.analysis.lint.leakage import leakage
from sur.analysis.lint.outliers import outliers
from sur.analysis.lint.picture_features import PictureFeatures, file_features, latent_features
from sur.analysis.lint.pictures import blank_pictures, near_pictures, same_pictures, unsafe_pictures
from sur.analysis.lint.prompts import duplicates, foreign_prompts, near_duplicates, same_prompts, unsafe_prompts
from sur.analysis.lint.truncated import cut_in_data, cut_in_store
from sur.analysis.store.blocks import FLOATS, is_latents
from sur.analysis.store.pictures import LatentPictures
from sur.analysis.store.vectors import row_vectors
from sur.cache import RowRecord, Store
from sur.data import language
from sur.support.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from sur.config.data import DataConfig
    from sur.config.run import RunConfig
    from sur.data import Quarantined

CHECKS = {
    "unusable": "rows that extraction would quarantine (data sources only)",
    "duplicate": "the same two prompts in several rows",
    "near-duplicate": "nearly the same two prompts",
    "same-prompt": "a simple prompt that is the complex one",
    "cut-off": "prompts whose end an encoder does not read",
    "language": "simple prompts in another language than most",
    "unsafe-prompt": "words of a short list: a weak check",
    "blank-picture": "pictures with next to nothing in them",
    "near-duplicate-picture": "nearly the same pictures",
    "unsafe-picture": "what a safety checker flags",
    "outlier": "rows far from all others in a feature (stores only)",
    "leakage": "validation rows that were trained on in another form",
}


@dataclass(frozen=True)
class LintOptions:
    """The checks to run, and their thresholds; `only` and `skip` name checks of `CHECKS`.

    text_similarity: Jaccard index of words and word pairs. picture_similarity: cosine of small pictures.
    outlier_score: modified z-score of the distance to the mean. language: ISO 639-1 code (default: that of most rows).
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    text_similarity: float = 0.8
    picture_similarity: float = 0.99
    outlier_score: float = 6.0
    validation_fraction: float = 0.05
    language: str | None = None
    safety_checker: Path | None = None

    def __post_init__(self) -> None:
        if unknown := sorted({*self.only, *self.skip} - set(CHECKS)):
            raise ConfigError(f"there is no check {', '.join(unknown)}; there are: {', '.join(CHECKS)}")
        if not any(map(self.wants, CHECKS)):
            raise ConfigError("every check is skipped; leave one to run")

    def wants(self, check: str) -> bool:
        """Whether a check is to run."""
        return check not in self.skip and (not self.only or check in self.only)


def lint_store(
    store: Store, options: LintOptions | None = None, on_check: Callable[[str], None] = lambda check: None
) -> LintReport:
    """The report on the rows that a store's data sets have now (all rows, if the store has no data sets).

    on_check: is called with each check that begins.

    Raises: ConfigError for an unknown language or a missing safety checker; CorruptStore for damaged values.
    """
    members = [store.members(name) for name in store.datasets()]
    current = np.any(members, axis=0) if members else store.filled()
    rows = [row for row in store.rows() if current[row.slot]]
    lint = _Lint(rows, options or LintOptions(), on_check)
    lint.skipped["unusable"] = "is for data sources: a store holds only rows that could be used"
    pictures = LatentPictures(store)
    features = partial(latent_features, store, pictures.feature, rows) if pictures.feature else None
    lint.check("cut-off", "by the features' receipts", lambda: cut_in_store(store, rows))
    lint.prompts()
    lint.pictures(features, _decoded(pictures, lint.options), "the store holds no latents")
    lint.check("outlier", "by the mean vector of each feature", lambda: _outliers(store, rows, lint.options))
    lint.leakage()
    return lint.report(str(store.path))


def lint_data(
    data: DataConfig,
    config: RunConfig | None = None,
    options: LintOptions | None = None,
    on_check: Callable[[str], None] = lambda check: None,
) -> LintReport:
    """The report on the rows of a data source; `config` is that of its run and names the encoders.

    Raises: FileNotFoundError without the data; ConfigError as `lint_store`.
    """
    from sur.data import open_rows, scan
    from sur.support.images import decode

    source = open_rows(data, "data.path" if config else "the data folder")
    on_check("reading the rows")
    rows, quarantined = scan(source, need_image=config is not None and config.vae is not None)
    lint = _Lint(rows, options or LintOptions(), on_check)
    lint.check("unusable", "as extraction does", lambda: _unusable(quarantined))
    if config is None:
        lint.skipped["cut-off"] = "needs a config file in place of the folder, which names the encoders"
    else:
        lint.check("cut-off", "by the encoders' tokenizers", lambda: cut_in_data(config, rows))
    lint.prompts()
    features = partial(file_features, source, rows) if any(row.image for row in rows) else None
    lint.pictures(
        features,
        lambda row: decode(source.image_bytes(row.image), data.max_image_pixels),
        "no row names a picture",
    )
    lint.skipped["outlier"] = "is for stores: features are not computed yet"
    lint.leakage()
    return lint.report(str(data.path))


@dataclass
class _Lint:
    """The rows, and the findings so far."""

    rows: list[RowRecord]
    options: LintOptions
    on_check: Callable[[str], None]
    findings: list[Finding] = field(default_factory=list)
    checked: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    picture_features: PictureFeatures | None = None

    def check(self, name: str, how: str, findings: Callable[[], Iterable[Finding]]) -> None:
        """Run one check, unless the options leave it out."""
        if not self.options.wants(name):
            self.skipped[name] = NOT_ASKED
            return
        self.on_check(name)
        self.findings += findings()
        self.checked[name] = how

    def prompts(self) -> None:
        """The checks that need prompts alone."""
        rows, options = self.rows, self.options
        near = f"by MinHash, a Jaccard index of {options.text_similarity} or more"
        self.check("duplicate", "exactly", lambda: duplicates(rows))
        self.check("near-duplicate", near, lambda: near_duplicates(rows, options.text_similarity))
        self.check("same-prompt", "exactly", lambda: same_prompts(rows))
        self.check("unsafe-prompt", "by a short list of words, which is weak", lambda: unsafe_prompts(rows))
        if language.can_tell_languages():
            self.check("language", "by py3langid, prompts of four words or more", self._foreign)
        else:
            self.skipped["language"] = language.MISSING

    def _foreign(self) -> Iterator[Finding]:
        try:
            languages = language.languages((row.simple for row in self.rows), self.options.language)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return foreign_prompts(self.rows, languages, self.options.language)

    def pictures(
        self,
        read_features: Callable[[], PictureFeatures] | None,
        picture: Callable[[RowRecord], Image] | None,
        lacking: str,
    ) -> None:
        """The checks that need pictures or latents; `lacking` says why there are none."""
        names, options = ("blank-picture", "near-duplicate-picture", "unsafe-picture"), self.options
        if read_features is None:
            self.skipped |= dict.fromkeys(names, lacking)
            return
        if any(map(options.wants, (*names[:2], "leakage"))):
            self.on_check("pictures")
            self.picture_features = read_features()
        if (features := self.picture_features) is not None:
            alone = " alone, since the VAE is not here to decode them" if picture is None else ""
            near = f"by {features.how}, a cosine of {options.picture_similarity} or more"
            self.check(names[0], f"by {features.how}{alone}", lambda: blank_pictures(self.rows, features, picture))
            self.check(names[1], near, lambda: near_pictures(self.rows, features, options.picture_similarity))
        if options.safety_checker is None:
            self.skipped[names[2]] = safety.NO_SAFETY_CHECKER
        elif picture is None:
            self.skipped[names[2]] = "needs the VAE that made the latents, to decode them"
        else:
            flags = safety.load_safety_checker(options.safety_checker)
            pictured = [row for row in self.rows if row.image]
            how = f"by the safety checker in {options.safety_checker}"
            self.check(names[2], how, lambda: unsafe_pictures(pictured, picture, flags))

    def leakage(self) -> None:
        """The leakage check, which takes the groups that other checks found."""
        same = same_pictures(self.picture_features) if self.picture_features else []
        near = [finding.rows for finding in self.findings if finding.check == "near-duplicate"]
        share = self.options.validation_fraction
        self.check("leakage", f"with train.validation_fraction {share}", lambda: leakage(self.rows, share, same, near))

    def report(self, source: str) -> LintReport:
        """The report with all findings, check by check."""
        order = {name: number for number, name in enumerate(CHECKS)}
        findings = sorted(self.findings, key=lambda finding: order[finding.check])
        for name in CHECKS:
            if name not in self.checked and name not in self.skipped:
                self.skipped[name] = NOT_ASKED
        return LintReport(source, len(self.rows), tuple(findings), self.checked, self.skipped)


def _decoded(pictures: LatentPictures, options: LintOptions) -> Callable[[RowRecord], Image] | None:
    """The function that gives a row's real picture; None if no check needs it or the VAE is not here.

    The VAE is loaded here, if a check needs it.
    """
    needed = any(map(options.wants, ("blank-picture", "unsafe-picture")))
    return (lambda row: pictures.picture(row.slot)) if needed and pictures.faithful else None


def _unusable(quarantined: Iterable[Quarantined]) -> Iterator[Finding]:
    from sur.data.scan import EXCLUDED

    for entry in quarantined:
        if entry.field == EXCLUDED:
            continue  # the user left the row out
        message = f"{entry.location}: {entry.field}: {entry.reason}"
        yield Finding("duplicate" if entry.field == "duplicate" else "unusable", message, entry.remedy, (), ())


def _outliers(store: Store, rows: Sequence[RowRecord], options: LintOptions) -> Iterator[Finding]:
    by_slot = {row.slot: row for row in rows}
    for name, spec in store.features().items():
        if not any(array.dtype in FLOATS for array in spec.arrays.values()):
            continue
        vectors, slots = row_vectors(store, name)
        current = np.array([slot in by_slot for slot in slots.tolist()], bool)
        chosen = vectors if current.all() else vectors[current]
        what = "the picture's latent" if is_latents(spec) else "its vector"
        yield from outliers(
            [by_slot[slot] for slot in slots[current].tolist()], chosen, f"{what} in {name}", options.outlier_score
        )

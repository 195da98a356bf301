"""What the pages of the app are made from: the store's table, pictures, background work, runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

from PIL import Image

from sur.analysis.reports.runs import RunRecord, read_run, run_names, stamp
from sur.analysis.store.neighbours import Neighbours
from sur.analysis.store.pictures import LatentPictures
from sur.analysis.store.statistics import FeatureStatistics, feature_statistics
from sur.analysis.store.table import State, Table
from sur.analysis.store.watch import Watch
from sur.analysis.web.background import Job, Jobs
from sur.analysis.web.filters import Found
from sur.analysis.web.thumbnails import Thumbnails
from sur.cache import Store


class Viewer:
    """Everything that one running app holds; `folders` are those of runs.

    vae: where the pictures' VAE is, if the run beside the store does not tell. Raises FileNotFoundError for a folder
    that is no run's, CacheError where there is no store.
    """

    def __init__(self, location: str | Path, folders: Sequence[Path] = (), vae: str | None = None) -> None:
        self.watch = Watch(location)
        self.found = Found()
        self.jobs = Jobs()
        self._folders = list(zip(run_names(folders), folders, strict=True))
        self.runs()  # a wrong folder is said at the start
        self._vae = vae
        self._pictures: tuple[Store, LatentPictures] | None = None
        self._choosing = Lock()
        self.thumbnails = Thumbnails(self._picture)

    @property
    def store(self) -> Store:
        """The store, opened anew when a feature was made anew."""
        return self.watch.store

    @property
    def table(self) -> Table:
        """All rows as they were read last."""
        return self.watch.table

    @property
    def pictures(self) -> LatentPictures:
        """The decoder of latents; it is looked for again as long as the store has none."""
        with self._choosing:
            known = self._pictures
            if known is None or known[1].feature is None or known[0] is not self.store:
                known = self._pictures = (self.store, LatentPictures(self.store, vae=self._vae))
            return known[1]

    @property
    def how(self) -> str:
        """What makes the pictures, for people; "" as long as its weights have not been loaded."""
        return self.load_pictures().result or ""

    def load_pictures(self) -> Job[str]:
        """Load what decodes latents, in the background."""
        return self.jobs.get(("pictures", self.store), None, lambda _progress: self.pictures.how)

    def has_picture(self, place: int) -> bool:
        """Whether a row has a latent."""
        column = self.table.features.get(self.pictures.feature or "")
        return column is not None and column.states[place] == State.VALUE

    def runs(self) -> list[RunRecord]:
        """The runs as they are now."""
        return [_read(folder, name, stamp(folder)) for name, folder in self._folders]

    def statistics(self, feature: str, renew: bool = False) -> Job[FeatureStatistics]:
        """Statistics over all rows of a feature, in the background."""
        column, store = self.table.features[feature], self.store
        return self.jobs.get(
            ("statistics", feature, column.spec.identity_digest),
            column.partitions_done,
            lambda progress: feature_statistics(store, feature, progress),
            renew=renew,
            retry=renew,
        )

    def neighbours(self, feature: str) -> Job[Neighbours]:
        """The vectors of a feature, in the background; anew when there are more partitions, which reads only those."""
        column, store = self.table.features[feature], self.store
        return self.jobs.get(
            ("neighbours", feature, column.spec.identity_digest),
            column.partitions_done,
            lambda progress: Neighbours(store, feature, True, progress),
            renew=True,
        )

    def _picture(self, slot: int) -> Image.Image:
        return self.pictures.picture(slot)


@lru_cache(maxsize=64)
def _read(folder: Path, name: str, _stamp: object) -> RunRecord:
    return read_run(folder, name)

"""The data behind the pages of the app: the store's table, pictures, background jobs, runs and their plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from PIL import Image

from sur.analysis.reports.runs import RunRecord, read_run, run_names, stamp
from sur.analysis.store.neighbours import Neighbours
from sur.analysis.store.pictures import LatentPictures
from sur.analysis.store.statistics import FeatureStatistics, feature_statistics
from sur.analysis.store.table import State, Table
from sur.analysis.store.watch import StoreWatch
from sur.analysis.web.background import Job, Jobs
from sur.analysis.web.filters import MatchCache
from sur.analysis.web.thumbnails import Thumbnails
from sur.cache import Store
from sur.training.tracking.plots import plot_compared


class Viewer:
    """Everything that one running app holds.

    folders: run folders. vae: folder or hub id of the pictures' VAE (default: that of the run beside the store).

    Raises: FileNotFoundError for a folder that is not a run's, CacheError if there is no store.
    """

    def __init__(self, location: str | Path, folders: Sequence[Path] = (), vae: str | None = None) -> None:
        self.watch = StoreWatch(location)
        self.matches = MatchCache()
        self.jobs = Jobs()
        self._folders = list(zip(run_names(folders), folders, strict=True))
        self._records: dict[tuple[str, Path], tuple[object, RunRecord]] = {}
        self.runs()  # a wrong folder is refused at the start
        self.curve_plots = CurvePlots(self._folders)
        self._vae = vae
        self._pictures: tuple[Store, LatentPictures] | None = None
        self._choosing = Lock()
        self.thumbnails = Thumbnails(self._picture)

    @property
    def store(self) -> Store:
        """The store; it is opened anew when a feature was computed anew."""
        return self.watch.store

    @property
    def table(self) -> Table:
        """All rows that are read so far."""
        return self.watch.table

    @property
    def pictures(self) -> LatentPictures:
        """The decoder of latents; while the store has no latents, every access looks for some again."""
        with self._choosing:
            current = self._pictures
            if current is None or current[1].feature is None or current[0] is not self.store:
                current = self._pictures = (self.store, LatentPictures(self.store, vae=self._vae))
            return current[1]

    @property
    def how(self) -> str:
        """How the pictures are made, for people; "" until the decoder is loaded."""
        return self.load_pictures().result or ""

    def load_pictures(self) -> Job[str]:
        """The job that loads the decoder of latents, in the background."""
        return self.jobs.get(("pictures", self.store), None, lambda _progress: self.pictures.how)

    def has_picture(self, place: int) -> bool:
        """Whether a row has a latent."""
        column = self.table.features.get(self.pictures.feature or "")
        return column is not None and column.states[place] == State.VALUE

    def runs(self) -> list[RunRecord]:
        """The records of all runs; a folder is read again when its files have changed."""
        return [self._record(name, folder) for name, folder in self._folders]

    def statistics(self, feature: str, renew: bool = False) -> Job[FeatureStatistics]:
        """The job that computes statistics over all rows of a feature, in the background."""
        column, store = self.table.features[feature], self.store
        return self.jobs.get(
            ("statistics", feature, column.spec.identity_digest),
            column.partitions_done,
            lambda progress: feature_statistics(store, feature, progress),
            renew=renew,
            retry=renew,
        )

    def neighbours(self, feature: str) -> Job[Neighbours]:
        """The job that computes the vectors of a feature, in the background.

        It starts again when there are more partitions, and then reads only those.
        """
        column, store = self.table.features[feature], self.store
        return self.jobs.get(
            ("neighbours", feature, column.spec.identity_digest),
            column.partitions_done,
            lambda progress: Neighbours(store, feature, True, progress),
            renew=True,
        )

    def _picture(self, slot: int) -> Image.Image:
        return self.pictures.picture(slot)

    def _record(self, name: str, folder: Path) -> RunRecord:
        files = stamp(folder)
        known = self._records.get((name, folder))
        if known is None or known[0] != files:
            known = self._records[name, folder] = (files, read_run(folder, name))
        return known[1]


class CurvePlots:
    """Plots of recorded numbers of runs, drawn on request; a plot is drawn again when a run's files have changed."""

    def __init__(self, folders: Sequence[tuple[str, Path]]) -> None:
        self._folders = folders
        self._plots: dict[str, tuple[object, bytes]] = {}
        self._drawing = Lock()  # matplotlib draws for one thread at a time

    def get(self, name: str) -> bytes:
        """The plot of one number over the steps of all runs, SVG."""
        with self._drawing:
            files = [stamp(folder) for _, folder in self._folders]
            known = self._plots.get(name)
            if known is None or known[0] != files:
                curves = {run: read_run(folder).curves for run, folder in self._folders}
                known = self._plots[name] = (files, plot_compared(curves, name))
            return known[1]

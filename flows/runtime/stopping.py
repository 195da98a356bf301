"""What a stopped run has kept: partitions in its store, steps in its checkpoints, texts of a build."""

from __future__ import annotations

from pathlib import Path

from sur.cache import CacheError, Store
from sur.config.curation import BuildConfig
from sur.config.run import RunConfig
from sur.config.run_folder import RunFolder
from sur.support.signals import Stopped, stopped_with


def stopped(error: KeyboardInterrupt, config: RunConfig | BuildConfig) -> Stopped:
    """The exception of a stopped run; its message says what the store and the run folder hold now."""
    kept = [*_partitions(config), *_steps(config)] if isinstance(config, RunConfig) else _texts(config)
    return stopped_with(error, kept)


def partitions_done(path: Path | str) -> tuple[int, int]:
    """Partitions of all features that the store at `path` holds, and how many its rows should have."""
    features = Store.open(path).describe().features if Store.exists(path) else ()
    return sum(feature.partitions_done for feature in features), sum(feature.partitions_total for feature in features)


def _partitions(config: RunConfig) -> list[str]:
    """The partitions committed to the store, in words. A bucket is not read, since that may take long."""
    path = config.store.path
    if isinstance(path, str):
        return [f"every finished partition in {path}"]
    try:
        done, total = partitions_done(path)
    except CacheError:
        return []
    return [f"{done} of {total} partitions in {path}"] if total else []


def _steps(config: RunConfig) -> list[str]:
    """The newest checkpoint of the run folder, in words."""
    folder = RunFolder(config.run_dir)
    step = folder.last_step()
    return [f"the training at step {step} of {config.train.steps} in {folder.checkpoints}"] if step else []


def _texts(config: BuildConfig) -> list[str]:
    """The texts that models wrote for a build, in words."""
    from sur.data.curation.writers.text_log import count_texts

    count = count_texts(config.run_dir)
    return [f"{count} texts that models wrote, in {config.run_dir}"] if count else []

"""Writes rows of the shapes world in SURD's layout: pictures and metadata.jsonl (`file_name`, `text`, `prompt`)."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np

from sur.shapes.prompts import TRAIN, complex_prompt, narrative_prompt
from sur.shapes.scenes import render_scene, sample_scene
from sur.shapes.words import PAIRED_KINDS, UNPAIRED_KINDS
from sur.support.errors import ConfigError
from sur.support.files import replacing_folder

DATASET_VERSION = 3
_log = logging.getLogger(__name__)
_PICTURE = re.compile(r"\d{6}\.png")


def write_dataset(folder: str | Path, rows: int, unpaired: int, seed: int = 0) -> Path:
    """Write `rows` paired rows and `unpaired` narrative prompts without picture or complex prompt.

    Paired rows use `common` and `rare` words only; every unpaired one has one word that no paired row explains.
    A folder written with the same arguments is left as it is; returns `folder`.
    """
    folder = Path(folder)
    settings = {"format_version": DATASET_VERSION, "rows": rows, "unpaired": unpaired, "seed": seed}
    stamp = folder / "settings.json"
    if stamp.is_file() and json.loads(stamp.read_text()) == settings:
        return folder
    _log.info("writing %d rows of the shapes world to %s", rows + unpaired, folder)
    with replacing_folder(folder) as partial:
        rng = np.random.default_rng([seed, 1])
        lines = []
        for index in range(rows):
            scene = sample_scene(rng)
            name = f"{index:06d}.png"
            render_scene(scene, rng).save(partial / name)
            narrative = narrative_prompt(scene, rng, TRAIN, PAIRED_KINDS).text
            lines.append({"file_name": name, "text": narrative, "prompt": complex_prompt(scene, rng)})
        for index in range(unpaired):
            kind = UNPAIRED_KINDS[index % len(UNPAIRED_KINDS)]
            lines.append({"text": narrative_prompt(sample_scene(rng), rng, TRAIN, PAIRED_KINDS, require=kind).text})
        (partial / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (partial / "settings.json").write_text(json.dumps(settings) + "\n")
        if folder.exists():
            _remove_written(folder)
    return folder


def _remove_written(folder: Path) -> None:
    """Remove a data set of ours; anything else is left for its owner to move.

    Raises ConfigError when `folder` is not one that `write_dataset` wrote, or holds anything else.
    """
    names = {entry.name for entry in folder.iterdir()}
    foreign = {name for name in names - {"settings.json", "metadata.jsonl"} if not _PICTURE.fullmatch(name)}
    settings = json.loads((folder / "settings.json").read_text()) if "settings.json" in names else None
    if foreign or not isinstance(settings, dict) or set(settings) != {"format_version", "rows", "unpaired", "seed"}:
        raise ConfigError(f"{folder} exists and was not written by this program; choose another folder")
    shutil.rmtree(folder)

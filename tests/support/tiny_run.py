"""A complete tiny run: random models, a SURD folder with pictures, and a config that ties them together."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_models import save_llm, save_pipeline

from sur.config.run import RunConfig, load_config

ROWS_PER_PARTITION = 4


def save_models(folder: Path) -> Path:
    """A random pipeline in `pipe` and a random LLM in `llm`; returns the folder."""
    save_pipeline(folder / "pipe")
    save_llm(folder / "llm")
    return folder


def save_rows(folder: Path, pictures: int = 5, phrases: int = 2, broken: bool = True) -> Path:
    """`pictures` x `phrases` good rows (some simple prompts repeat), then a row that names no picture."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    lines = []
    for picture in range(pictures):
        pixels = random.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{picture}.png")
        for phrase in range(phrases):
            text = f"there are {picture % 3} cats, phrase {phrase}"
            lines.append({"file_name": f"{picture}.png", "text": text, "prompt": f"{picture} cats, 8k"})
    if broken:
        lines.append({"file_name": "absent.png", "text": "nothing", "prompt": "nothing, 8k"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def save_config_file(folder: Path, models: Path, rows: Path, llm_model: str | None = None) -> Path:
    """A YAML file for a run in `folder`; returns its path."""
    path = folder / "run.yaml"
    path.write_text(
        f"run_dir: {folder}/run\n"
        f"base_model: {models}/pipe\n"
        f"data: {{path: {rows}}}\n"
        f"store: {{rows_per_partition: {ROWS_PER_PARTITION}}}\n"
        f"llm: {{model: '{llm_model or models / 'llm'}', layers: [1, 3]}}\n"
        f"vae: {{resolution: 32}}\n"
        f"flow: {{partitions_per_task: 2, retries: 2, retry_seconds: 0.01}}\n"
    )
    return path


def tiny_config(folder: Path, models: Path, rows: Path, *overrides: str) -> RunConfig:
    """The configuration of such a file with overrides."""
    return load_config(save_config_file(folder, models, rows), overrides)


def store_files(store: Path) -> dict[str, bytes]:
    """Every file of a store by its path inside it."""
    return {str(f.relative_to(store)): f.read_bytes() for f in sorted(store.rglob("*")) if f.is_file()}

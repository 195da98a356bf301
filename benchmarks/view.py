"""What the pages of `sur view` take on a store of 100,000 rows, asked over loopback as a browser asks.

    python benchmarks/view.py FOLDER [--rows 100000]

The store is made first (prompts of the shapes world, random values: text states with lengths, a pooled state of 1,024
numbers, latents that the shapes world's VAE decodes), and kept for another run. A figure is the median of several
requests, of rows that were not asked for before where it says "first". The last line is what a page would take that
reads the prompts from the store: what the table in memory saves.
"""

from __future__ import annotations

import argparse
import re
import resource
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

import httpx
import numpy as np

from sur.analysis.web.app import create_app, serve_app
from sur.analysis.web.filters import PAGE_ROWS
from sur.analysis.web.viewer import Viewer
from sur.cache import ArraySpec, FeatureSpec, RowRecord, Store, row_id
from sur.models.fingerprint import weights_fingerprint
from sur.shapes.prompts import TRAIN, complex_prompt, narrative_prompt
from sur.shapes.scenes import sample_scene
from sur.shapes.words import PAIRED_KINDS

VAE = Path(__file__).parent.parent / "sur" / "shapes" / "weights" / "vae"
TEXT = FeatureSpec("text.made.simple", "text", {"model": "made"},
                   {"states": ArraySpec("float16", (8, 16)), "length": ArraySpec("int32", ())})  # fmt: skip
LLM = FeatureSpec("llm.made.l16.mean", "llm", {"model": "made", "layer": 16}, {"states": ArraySpec("float16", (1024,))})


def make_store(folder: Path, rows: int) -> Path:
    """A store of so many rows in the folder, made unless it is there."""
    path = folder / f"{rows}.zarr"
    if Store.exists(path) and Store.open(path).n_rows == rows:
        return path
    latents = FeatureSpec("vae.made.64", "vae", {"model": "shapes", "weights": weights_fingerprint(VAE)},
                          {name: ArraySpec("float16", (1, 4, 8, 8)) for name in ("mean", "logvar")})  # fmt: skip
    store = Store.create(path, rows_per_partition=512)
    random = np.random.default_rng(0)
    store.add_rows(made_row(number, random) for number in range(rows))
    store.set_members("all", (ids.tobytes() for ids in store.row_ids() if ids.any()))
    for spec in (TEXT, LLM, latents):
        store.ensure_feature(spec)
        for partition in range(store.n_partitions):
            here = len(store.rows(partition))
            values = {name: random.normal(size=(here, *a.shape)).astype(a.dtype) for name, a in spec.arrays.items()}
            if "length" in values:
                values["length"] = random.integers(1, 9, here, dtype=np.int32)
            store.write_partition(spec.name, partition, values)
    return path


def made_row(number: int, random: np.random.Generator) -> RowRecord:
    """A row with prompts of the shapes world, and a number that no other has."""
    scene = sample_scene(random)
    narrative = narrative_prompt(scene, random, TRAIN, PAIRED_KINDS).text
    simple, complex = f"{narrative}, number {number}", complex_prompt(scene, random)
    return RowRecord(row_id(simple, complex, None), simple, complex)


class Asking:
    """Sends requests and prints a line for each kind."""

    def __init__(self, address: str) -> None:
        self.client = httpx.Client(base_url=address, timeout=600)

    def get(self, address: str) -> str:
        """A page."""
        answer = self.client.get(address)
        answer.raise_for_status()
        return answer.text

    def time(self, name: str, address: Callable[[], str], times: int = 5) -> None:
        """Median seconds of several requests."""
        taken, size = [], 0
        for _ in range(times):
            asked = address()
            began = time.perf_counter()
            size = len(self.client.get(asked).raise_for_status().content)
            taken.append(time.perf_counter() - began)
        tell(name, median(taken), f"{size / 1000:,.1f} kB")

    def until_done(self, name: str, address: str, sign: str) -> None:
        """Seconds until a page no longer says that it is being computed."""
        began = time.perf_counter()
        while sign in self.get(address):
            time.sleep(0.05)
        tell(name, time.perf_counter() - began)


def tell(name: str, seconds: float, beside: str = "") -> None:
    """A line of the table."""
    shown = f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:,.1f} ms"
    print(f"| {name} | {shown} | {beside} |", flush=True)


def measure(path: Path, rows: int) -> None:
    """Serve the store and ask."""
    print(f"| {rows:,} rows | time | page |\n|---|---:|---:|")
    began = time.perf_counter()
    viewer = Viewer(path, vae=str(VAE))
    started, said = threading.Event(), []
    server = threading.Thread(
        target=serve_app,
        args=(create_app(viewer), "127.0.0.1", 0, lambda a: (said.append(a), started.set())),
        daemon=True,
    )
    server.start()
    started.wait()
    ask = Asking(said[0])
    ask.get("/rows")
    tell("start to the first page", time.perf_counter() - began)
    while viewer.table.n_rows < rows:
        time.sleep(0.02)
    tell("start until every row is in the table", time.perf_counter() - began)
    numbers = count(1)
    last = (rows - 1) // PAGE_ROWS
    far = min(2000, last)
    ask.time("first page of rows", lambda: "/rows")
    ask.time(f"page {far:,}", lambda: f"/rows?offset={far * PAGE_ROWS}")
    ask.time("search of two words, first", lambda: f"/rows?q=number+{rows // 2 + next(numbers)}")
    ask.time(
        "search of a word that most rows have, first",
        lambda: f"/rows?q=a&low=0&feature={TEXT.name}&high={8 + next(numbers)}",
    )
    ask.time("the same, next pages", lambda: f"/rows?q=number&offset={PAGE_ROWS * next(numbers)}")
    ask.time(
        "token length 3 to 5, longest first",
        lambda: f"/rows?feature={TEXT.name}&low=3&high=5&order=longest&offset={PAGE_ROWS * next(numbers)}",
    )
    while not viewer.how:
        time.sleep(0.1)
    pictures = iter(re.findall(r'src="(/pictures/[^"]+)"', ask.get(f"/rows?offset={rows // 3}")))
    seen = next(pictures)
    ask.get(seen)
    ask.time("a thumbnail, first", lambda: next(pictures), 20)
    ask.time("a thumbnail again", lambda: seen, 20)
    ids = iter(re.findall(r'data-row="/rows/(\w+)"', ask.get(f"/rows?offset={rows // 4}")))
    ask.time("a row", lambda: f"/rows/{next(ids)}", 10)
    one = next(ids)
    for spec in (LLM, TEXT):
        size = spec.arrays["states"].shape[-1]
        address = f"/rows/{one}/neighbours?feature={spec.name}"
        ask.until_done(f"nearest rows by {size} numbers, before the vectors are there", address, "data-again")
        ask.time(f"nearest rows by {size} numbers", lambda s=spec: f"/rows/{next(ids)}/neighbours?feature={s.name}")
    ask.until_done("statistics of a feature, before they are there", f"/features/{LLM.name}", "data-reload")
    ask.time("statistics again", lambda: f"/features/{LLM.name}")
    ask.time("the overview", lambda: "/")
    began = time.perf_counter()
    viewer.watch.refresh()
    tell("a look for what is new (every two seconds)", time.perf_counter() - began)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    began = time.perf_counter()
    sum("triangle" in row.simple for row in Store.open(path).rows())
    tell("reading all prompts from the store instead", time.perf_counter() - began)
    print(f"\nThe process held {held:,.0f} MB at most.")


def main() -> None:
    """Make the store, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    measure(make_store(options.folder, options.rows), options.rows)


if __name__ == "__main__":
    main()

"""What `sur inspect`, `sur lint`, `sur probe` and `sur report` take on a store of many rows.

    python benchmarks/inspection.py FOLDER [--rows 100000]

The store is made in FOLDER where it is not there yet: prompts of ten to thirty words of a vocabulary, two layers of a
pooled LLM of 1,024 numbers a row, text states of both prompts of 16 tokens x 128, latents of 4 x 16 x 16. `first` is a
view in a new process whose vectors or prompts nothing has read yet, `again` the same in the same process.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from memory import Peak

from sur.analysis.lint.lint import CHECKS, LintOptions, lint_store
from sur.analysis.probe.measure import probe
from sur.analysis.reports.store_report import write_store_report
from sur.analysis.store.difference import compare_features, compare_stores
from sur.analysis.store.neighbours import Neighbours
from sur.analysis.store.rows import describe_row
from sur.analysis.store.search import PromptSearch
from sur.analysis.store.statistics import feature_statistics
from sur.analysis.store.vectors import row_vectors
from sur.cache import ArraySpec, FeatureSpec, RowRecord, Store, row_id
from sur.config.probe import ProbeConfig

LLM, TEXT, LATENTS = "llm.big.l20.mean", "text.big.simple", "vae.big.128"
POOLED = {"states": ArraySpec("bfloat16", (1024,)), "length": ArraySpec("int32", ())}
STATES = {"states": ArraySpec("float16", (16, 128)), "length": ArraySpec("int32", ())}
SPECS = {
    LLM: POOLED,
    "llm.big.l10.mean": POOLED,
    TEXT: STATES,
    "text.big.complex": STATES,
    LATENTS: {name: ArraySpec("float16", (1, 4, 16, 16)) for name in ("mean", "logvar")},
}
VIEWED = (LLM, TEXT, LATENTS)


def rows(n: int) -> Iterator[RowRecord]:
    """`n` rows of random words; one in a hundred repeats the words of the row before it but for one."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = ["".join(random.choice(letters, random.integers(3, 9))) for _ in range(5000)]
    words: list[str] = []
    for number in range(n):
        if number % 100:
            words = [vocabulary[word] for word in random.integers(len(vocabulary), size=random.integers(10, 31))]
        else:
            words = [*words[:-1], vocabulary[number % len(vocabulary)]]
        simple = " ".join(words)
        complex = " ".join([*words[:8], "masterpiece"])
        yield RowRecord(row_id(simple, complex, b""), simple, complex, f"{number}.png")


def build(path: Path, n: int) -> None:
    """Write the store."""
    store = Store.create(path)
    store.add_rows(rows(n))
    store.set_members("data", (row.tobytes() for row in store.row_ids()[store.filled()]))
    random = np.random.default_rng(1)
    for name, arrays in SPECS.items():
        kind, model, part, *pooling = name.split(".")
        layer = {"layer": int(part[1:]), "pooling": pooling[0]} if kind == "llm" else {}
        store.ensure_feature(FeatureSpec(name, kind, {"model": model} | layer, arrays))
        for partition in range(store.n_partitions):
            count = len(store.rows(partition))
            values: dict[str, np.ndarray] = {}
            for array, spec in arrays.items():
                if spec.dtype == "int32":
                    values[array] = random.integers(4, 17, count, dtype=np.int32)
                    continue
                made = random.standard_normal((count, *spec.shape), dtype=np.float32)
                bits = (made.view(np.uint32) >> 16).astype(np.uint16)
                values[array] = bits if spec.dtype == "bfloat16" else made.astype(np.float16)
            store.write_partition(name, partition, values)


def line(what: str, work: Callable[[], object]) -> None:
    """Do it, and print a line of the table."""
    began = time.perf_counter()
    with Peak() as held:
        work()
    print(f"| {what} | {time.perf_counter() - began:.2f} | {held.megabytes:.0f} |", flush=True)


def inspect(path: Path) -> None:
    """The views of `sur inspect`."""
    store = Store.open(path)
    line("open the store, describe it", lambda: Store.open(path).describe())
    line("a row, first", lambda: describe_row(store, 70_000 % store.n_rows))
    line("a row, again", lambda: describe_row(store, 50_000 % store.n_rows))
    word = store.rows(0)[7].simple.split()[:2]
    search = PromptSearch(store)
    line("search two words, first", lambda: search.find(" ".join(word)))
    line("search two words, again", lambda: search.find(" ".join(reversed(word))))
    for name in VIEWED:
        line(f"statistics of {name}", lambda name=name: feature_statistics(store, name))
    for name in VIEWED:
        line(f"vectors of {name}, first", lambda name=name: row_vectors(store, name))
        line(f"vectors of {name}, again", lambda name=name: row_vectors(Store.open(path), name))
    near = Neighbours(store, LLM, standardised=True)
    line(f"prepare neighbours by {LLM}", lambda: Neighbours(store, LLM, standardised=True))
    line("5 nearest of a row by it", lambda: near.nearest(50_000 % store.n_rows, 5))
    plain = Neighbours(store, LLM)
    line("5 nearest of a row, not standardised", lambda: plain.nearest(50_000 % store.n_rows, 5))
    line(f"compare {TEXT} with itself, by checksum", lambda: compare_features(store, TEXT, store, TEXT))
    line("compare two stores, by checksum", lambda: compare_stores(store, Store.open(path)))


def differing(path: Path) -> None:
    """A comparison that has to read the values: one partition of the copy was written anew."""
    copy = path.with_name("copy.zarr")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    other = Store.open(copy, writable=True)
    values = other.read_partition(TEXT, 0)
    values["states"][0] += 1
    other.discard(TEXT, 0)
    other.write_partition(TEXT, 0, values)
    line(f"compare {TEXT} of two stores, by value", lambda: compare_features(Store.open(path), TEXT, other, TEXT))
    shutil.rmtree(copy)


def lint(path: Path) -> None:
    """Each check of `sur lint` but those that need a model; the vectors are there."""
    for check in CHECKS:
        if check in ("unusable", "unsafe-picture", "language"):  # random words are in no language
            continue
        line(f"lint, {check}", lambda check=check: lint_store(Store.open(path), LintOptions(only=(check,))))


def judge(path: Path) -> None:
    """`sur probe` on the rows it draws by default and on all, and `sur report`."""
    every = ProbeConfig(max_rows=10_000_000)
    line(f"probe of two layers, {ProbeConfig().max_rows:,} rows", lambda: probe(Store.open(path)))
    line("probe of two layers, all rows", lambda: probe(Store.open(path), every))
    page = path.with_suffix(".html")
    line("report, without statistics", lambda: write_store_report(path, [], page, statistics=False))
    line("report", lambda: write_store_report(path, [], page))


def main() -> int:
    """Build the store where it is not there, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ["SUR_CACHE"] = str(asked.folder / "cache")
    shutil.rmtree(asked.folder / "cache", ignore_errors=True)
    path = asked.folder / f"{asked.rows}.zarr"
    if not path.exists() or Store.open(path).features().keys() != SPECS.keys():
        shutil.rmtree(path, ignore_errors=True)
        print("making the store", file=sys.stderr)
        build(path, asked.rows)
    print("| what | seconds | MB held |\n|---|---|---|")
    inspect(path)
    differing(path)
    lint(path)
    judge(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

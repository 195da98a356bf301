"""The cache against what a user would otherwise pick: same rows, same machine, same run, one table of ratios.

    python -m venv --system-site-packages .venv-peers     # from an environment that has this project
    .venv-peers/bin/pip install h5py lmdb webdataset braceexpand
    .venv-peers/bin/pip install --no-deps litdata lightning-utilities tifffile mosaicml-streaming \\
        Brotli python-snappy zstd xxhash catalogue cramjam
    .venv-peers/bin/python benchmarks/cache_io.py FOLDER [--rows 2048] [--shape 77 768] [--only NAME ...]

Every peer works in processes of its own, in which a plain file of the same rows is written, and read through a memory
map, in turn with it: each figure is the peer's speed over the plain one's beside it (medians). Cold: the files' pages
were dropped (posix_fadvise) before they were opened. What is not installed is left out by name.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from memory import Peak
from peers import DTYPE, PEERS, MemoryMap, OursLoader, OursResident, OursWindow, Peer, blocks

BATCHES = (32, 256)
WRITES = 5  # times that everything is written
ROUNDS = 2048  # rows read at random in a round, at least


def drop_pages(path: Path) -> None:
    """Ask the system to forget the pages of files that nobody has open, so that the next read goes to the disk."""
    for file in path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def served(peer: Peer, batches: list[np.ndarray]) -> Callable[[], None]:
    """Batches taken one after the other, each let go before the next."""

    def work() -> None:
        for places in batches:
            peer.gather(places)

    return work


def drain(arrays: Iterator[np.ndarray] | None) -> int:
    """Rows of a scan."""
    return sum(len(array) for array in arrays or ())


class Pair:
    """A peer and the plain file, measured in turn."""

    def __init__(self, name: str, folder: Path, n: int, shape: tuple[int, ...]) -> None:
        self.peer_class, self.n, self.shape = PEERS[name], n, shape
        self.places = {"peer": folder / name.replace(" ", "-").replace(",", ""), "plain": folder / "plain"}
        self.row_bytes = int(np.prod(shape)) * np.dtype(DTYPE).itemsize

    def opened(self) -> tuple[Peer, MemoryMap]:
        peer, plain = self.peer_class(), MemoryMap()
        peer.open(self.places["peer"], self.n, self.shape)
        plain.open(self.places["plain"], self.n, self.shape)
        return peer, plain

    def ratio(self, times: list[tuple[float, float]], rows: int) -> dict[str, float]:
        """Plain over peer, of the median times for so many rows, and the plain one's speed in MB/s."""
        peer, plain = (statistics.median(column) for column in zip(*times, strict=True))
        return {"ratio": plain / peer, "plain": rows * self.row_bytes / plain / 1e6}

    def write(self) -> dict[str, Any]:
        """Both are written anew several times; the last ones stay."""
        list(blocks(self.n, self.shape))
        times = []
        for _ in range(WRITES):
            taken = []
            for which, peer_class in (("peer", self.peer_class), ("plain", MemoryMap)):
                shutil.rmtree(self.places[which], ignore_errors=True)
                self.places[which].mkdir(parents=True)
                peer = peer_class()
                peer.prepare(self.places[which], self.n, self.shape)
                os.sync()
                taken.append(seconds(lambda p=peer, w=which: p.write(self.places[w], self.n, self.shape)))
            times.append((taken[0], taken[1]))
        size = sum(file.stat().st_size for file in self.places["peer"].rglob("*") if file.is_file())
        return {"write": self.ratio(times, rows=self.n), "bytes a row": size / self.n}

    def check(self) -> None:
        """The peer gives back what was written."""
        peer, plain = self.opened()
        rows, places = None, np.arange(7)
        if not isinstance(peer, OursLoader):
            rows = peer.gather(places)
        if rows is None and (scanned := peer.scan()) is not None:
            rows = np.concatenate([part for part, _ in zip(scanned, range(7), strict=False)])[:7]
        expected = plain.map[:7]
        if rows is not None and not np.array_equal(rows, expected):
            raise ValueError("read back other numbers than were written")

    def read(self) -> dict[str, Any]:
        """Warm figures, all rows having been read before; then cold ones."""
        self.check()
        ratios: dict[str, Any] = {}
        peer, plain = self.opened()
        if peer.scan() is not None:
            times = [(seconds(lambda: drain(peer.scan())), seconds(lambda: drain(plain.scan()))) for _ in range(4)]
            ratios["in order"] = self.ratio(times[1:], rows=self.n)
        rng = np.random.default_rng(0)
        for size in BATCHES:
            if peer.gather(rng.permutation(self.n)[:size]) is None:
                break
            order = rng.permutation(self.n)
            for at in range(0, self.n - size + 1, size):  # every row touched once
                peer.gather(order[at : at + size])
            run = max(32, ROUNDS // size)  # many at a time: a loader has two made before it is asked
            run = (
                -(-run // (self.n // size)) * (self.n // size) if isinstance(peer, OursLoader) else run
            )  # whole epochs
            times = []
            for _ in range(5):
                places = [rng.permutation(self.n)[:size] for _ in range(run)]
                times.append((seconds(served(peer, places)), seconds(served(plain, places))))
            ratios[f"random {size}"] = self.ratio(times, rows=run * size)
        del peer, plain
        return ratios | self.cold()

    def cold(self) -> dict[str, Any]:
        """From the disk: each row once."""
        ratios, order = {}, np.random.default_rng(1).permutation(self.n)

        def scan(peer: Peer) -> Callable[[], Any]:
            return lambda: drain(peer.scan())

        def batches(peer: Peer) -> Callable[[], Any]:
            return served(peer, [order[at : at + 32] for at in range(0, min(512, self.n), 32)])

        for what, work in (("in order, cold", scan), ("random 32, cold", batches)):
            times = []
            for _ in range(3):
                drop_pages(self.places["peer"])
                drop_pages(self.places["plain"])
                peer, plain = self.opened()
                if isinstance(peer, OursWindow | OursResident):
                    break  # they read everything first
                if (peer.scan() if work is scan else peer.gather(order[:1])) is None:
                    break
                times.append((seconds(work(peer)), seconds(work(plain))))
                del peer, plain
            if times:
                ratios[what] = self.ratio(times, rows=self.n if work is scan else min(512, self.n))
        return ratios

    def memory(self) -> dict[str, Any]:
        """Largest anonymous memory while rows are read, over what the interpreter had before, in MB."""
        with Peak() as peak:
            peer = self.peer_class()
            peer.open(self.places["peer"], self.n, self.shape)
            rng = np.random.default_rng(0)
            for _ in range(16):
                if peer.gather(rng.permutation(self.n)[: BATCHES[-1]]) is None:
                    drain(peer.scan())
                    break
        return {"MB": peak.megabytes}


def table(ratios: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Markdown: ratios to the plain file, sizes and memory as they are."""
    speeds = list(
        dict.fromkeys(key for values in ratios.values() for key in values if key not in ("bytes a row", "MB"))
    )
    yield "| | " + " | ".join(speeds) + " | bytes a row | MB held |"
    yield "|---" * (len(speeds) + 3) + "|"
    for name, values in ratios.items():
        cells = [f"{values[key]['ratio']:.2f}" if key in values else "" for key in speeds]
        yield f"| {name} | {' | '.join(cells)} | {values['bytes a row']:,.0f} | {values['MB']:,.0f} |"
    plain = {key: statistics.median(v[key]["plain"] for v in ratios.values() if key in v) for key in speeds}
    yield ""
    yield "1.00 is, in MB/s: " + ", ".join(f"{key} {speed:,.0f}" for key, speed in plain.items())


def main() -> int:
    """Measure every peer in processes of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--shape", type=int, nargs=2, default=(77, 768))
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    shape = tuple(args.shape)
    if args.measure:
        what, name = args.measure
        print(json.dumps(getattr(Pair(name, args.folder, args.rows, shape), what)()))
        return 0
    ratios = {}
    for name in args.only:
        command = [
            sys.executable,
            __file__,
            str(args.folder),
            "--rows",
            str(args.rows),
            "--shape",
            *map(str, shape),
        ]
        values = {}
        for what in ("write", "read", "memory"):
            done = subprocess.run([*command, "--measure", what, name], capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                print(f"{name} left out: {reason}", file=sys.stderr)
                break
            values |= json.loads(done.stdout.strip().splitlines()[-1])
        else:
            ratios[name] = values
            print(f"{name} done", file=sys.stderr)
        for place in Pair(name, args.folder, args.rows, shape).places.values():
            shutil.rmtree(place, ignore_errors=True)
    print(f"\n{args.rows} rows of {shape[0]} x {shape[1]} float16\n")
    print("\n".join(table(ratios)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A headless Chromium, and a real server over a real small store with an evaluated run."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from sur.analysis.web.app import create_app, listen
from sur.analysis.web.viewer import Viewer
from sur.config.run import load_config
from sur.evaluation.results import Evaluation, Gap, PromptSetInfo, ScorerInfo, ScoreRow, Single, write_result
from sur.evaluation.statistics import Interval
from sur.features.extraction import extract
from sur.shapes.dataset import write_dataset

ROOT = Path(__file__).parent.parent.parent
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
FLAGS += ("--disable-component-update", "--disable-sync")
expect.set_options(timeout=30_000)  # a busy machine is slow
SMALL = ("store.rows_per_partition=32", "llm=null", "loss.distillation.form=none", "readout.rows=8")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium; playwright's own is not downloaded."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("there is no Chromium on this machine: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: 100 rows with pictures and 20 without, extracted, curves, scores and pictures made up."""
    folder = tmp_path_factory.mktemp("browser") / "one"
    data = write_dataset(folder / "data", rows=100, unpaired=20)
    places = [f"run_dir={folder}", f"data.path={data}", f"store.path={folder / 'store.zarr'}"]
    extract(load_config(ROOT / "configs" / "shapes.yaml", [*SMALL, *places, f"base_model={ROOT}/sur/shapes/weights"]))
    add_results(folder, 0.9)
    other = folder.with_name("two")
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("store.zarr", "data"))
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("learning_rate: 0.004", "learning_rate: 0.001"))
    add_results(other, 0.6)
    return folder


def add_results(folder: Path, score: float) -> None:
    """Curves, an evaluation and its pictures."""
    steps = [{"step": s, "train": {"alignment": score / s}, "learning_rate": 1e-3} for s in range(1, 40)]
    (folder / "curves.jsonl").write_text("".join(json.dumps(each) + "\n" for each in steps))
    conditions = ("narrative", "adapter", "complex")
    some = {
        c: Interval(value=v, low=v - 0.1, high=v + 0.1) for c, v in zip(conditions, (0.4, score, 0.95), strict=True)
    }
    rows = [
        ScoreRow(set="made", group="all", scorer="oracle", condition=c, prompts=2, pictures=2, score=some[c])
        for c in conditions
    ]
    singles = []
    for prompt in range(2):
        files = {c: [f"{prompt}-{c}.png"] for c in conditions}
        for number, (name,) in enumerate(files.values()):
            path = folder / "pictures" / name
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((64, 64, 3), 40 + 60 * number, dtype=np.uint8)).save(path)
        singles.append(Single(set="made", id=str(prompt), groups=(), narrative=f"narrative {prompt}", complex="complex",
                              pictures=files, scores={}))  # fmt: skip
    closed = Interval(value=(score - 0.4) / 0.55, low=0.3, high=1.0)
    result = Evaluation(
        digest="", adapter="adapter", adapter_fingerprint="", weight=None, pictures=str(folder / "pictures"), rows=rows,
        gaps=[Gap(set="made", group="all", scorer="oracle", closed=closed)], comparisons=[],
        sets=[PromptSetInfo(name="made", meaning="made up", groups={})],
        scorers=[ScorerInfo(name="oracle", meaning="share right", higher_is_better=True, top=1.0)],
    )  # fmt: skip
    write_result(folder, result, singles)


@pytest.fixture(scope="session")
def address(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the app over that store, served as `sur view` serves it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUR_CACHE", str(tmp_path_factory.mktemp("cache")))
        viewer = Viewer(run / "store.zarr", [run, run.with_name("two")])
        viewer.watch.seconds = 0.2
        socket = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(create_app(viewer), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A tab of its own; an error in a script, a refused load or a failed request fails the test."""
    context = browser.new_context(base_url=address, viewport={"width": 1280, "height": 860})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: faults.append(request.url) if not request.url.startswith((address, "data:")) else None)  # fmt: skip  # noqa: E501
    yield page
    context.close()
    assert faults == []

"""`sur report`: one page about a store and runs, whole in itself, with the numbers that the parts give."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up_evaluation import evaluation, run  # noqa: F401 fixtures
from typer.testing import CliRunner

from sur.analysis.reports.charts import MOST_BARS, feature_charts
from sur.analysis.reports.compare_runs import CLOSED, different_settings, picture_lines, score_lines
from sur.analysis.reports.runs import read_run, run_names
from sur.analysis.reports.store_report import write_store_report
from sur.analysis.store.statistics import feature_statistics
from sur.cache import ArraySpec, FeatureSpec, RowRecord, Store, row_id
from sur.cli.app import app
from sur.config.run_folder import RunFolder
from sur.support.images import ImageError
from sur.support.pages import picture_uri


@pytest.fixture(scope="module")
def page(shapes_config, tmp_path_factory) -> str:
    """The page of a small store of the shapes world and its run."""
    target = tmp_path_factory.mktemp("report") / "store.html"
    write_store_report(shapes_config.store.path, [shapes_config.run_dir], target)
    return html.unescape(target.read_text())


def test_the_page_has_every_feature_with_its_completeness_identity_and_statistics(page, shapes_config):
    store = Store.open(shapes_config.store.path)
    for feature in store.describe().features:
        section = page[page.index(f"<h2><code>{feature.name}</code></h2>") :].split("<h2>")[1]
        statistics = feature_statistics(store, feature.name)
        assert f"<dd>{statistics.mean:.4g}</dd>" in section
        assert f"median {statistics.norms.median:.4g}" in section
        assert all(str(value) in section for value in feature.identity.values() if isinstance(value, str))
        if feature.rows_missing:
            assert f'<td class="n">{feature.rows_missing}</td>' in section  # the reason's rows


def test_the_page_asks_nothing_of_a_network(page):
    assert set(re.findall(r'(?:src|href)="([^:"]*):', page)) == {"data"}
    assert "@import" not in page and "<script" not in page and "url(" not in page


def test_pictures_of_rows_are_in_the_page(page, shapes_config):
    rows = [row for row in Store.open(shapes_config.store.path).rows() if row.image]
    figures = re.findall(r'<figure><img class="pixels" src="data:image/png;base64,[^"]{100,}"', page)
    assert len(figures) == 24
    assert rows[0].simple in page and rows[-1].simple in page


def test_statistics_can_be_left_out(shapes_config, tmp_path):
    content = write_store_report(shapes_config.store.path, [], tmp_path / "a.html", statistics=False).read_text()
    assert "effective rank" not in content and "No statistics: not asked for" in content


def test_an_empty_store_has_a_page(tmp_path):
    Store.create(tmp_path / "store.zarr")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "store.zarr")])
    assert done.exit_code == 0, done.output
    assert "0 rows in 0 partitions" in (tmp_path / "store.html").read_text()


def test_runs_stand_side_by_side(run, evaluation, tmp_path):  # noqa: F811
    other = tmp_path / "runs" / "two"
    other.mkdir()
    RunFolder(other).evaluation.write_text(
        evaluation.model_copy(update={"gaps": [], "pictures": str(other)}).model_dump_json()
    )
    (other / "config.yaml").write_text("train: {steps: 7}\n")
    (run.run_dir / "config.yaml").write_text("train: {steps: 5}\nrun_dir: somewhere\n")
    runs = [read_run(folder, name) for folder, name in ((run.run_dir, "one"), (other, "two"))]
    assert different_settings(runs) == [("train.steps", ["5", "7"])]
    lines = score_lines(runs)
    assert [line.what for line in lines[:4]] == ["narrative", "narrative + adapter", "complex prompt", CLOSED]
    assert all(all(line.values) for line in lines if line.what != CLOSED)
    assert all(line.values[0] and line.values[1] is None for line in lines if line.what == CLOSED)
    assert lines[0].group == "all" and len({(line.set, line.group) for line in lines}) * 4 == len(lines)
    content = write_store_report(run.store.path, [run.run_dir, other], tmp_path / "a.html").read_text()
    assert "The runs side by side" in content and content.count("drawn with the adapter") == 4


def test_pictures_outside_their_folder_are_left_out(run, evaluation, tmp_path):  # noqa: F811
    file = run.run_dir / "evaluation.jsonl"
    assert len(picture_lines([read_run(run.run_dir)], 6)) == 4
    file.write_text(re.sub(r'"adapter":\["[^"]+"\]', '"adapter":["../../../secret.png"]', file.read_text()))
    (tmp_path / "secret.png").write_bytes(b"secret")
    lines = picture_lines([read_run(run.run_dir)], 6)
    assert len(lines) == 4 and all(line.worn == [None] and line.plain for line in lines)


def test_a_run_that_is_being_written_can_be_read(tmp_path):
    (tmp_path / "curves.jsonl").write_text('{"step": 1, "train": {"total": 2.0}}\n{"step": 2, "train": {"tot')
    (tmp_path / "evaluation.json").write_text("{")
    found = read_run(tmp_path)
    assert [record["step"] for record in found.curves] == [1] and found.evaluation is None
    with pytest.raises(FileNotFoundError, match="is no run's folder"):
        read_run(tmp_path / "absent")


def test_what_cannot_be_read_of_a_run_is_left_out(tmp_path, caplog):
    whole = {"position": 0, "location": "#0", "field": "image", "reason": "torn", "remedy": "replace it"}
    (tmp_path / "config.yaml").write_text("train: {steps: [")
    (tmp_path / "quarantine.jsonl").write_text(json.dumps(whole) + '\n\n{"position": 1, "loca\n[]\n')
    found = read_run(tmp_path)
    assert found.settings == {} and [each.reason for each in found.quarantined] == ["torn"]
    assert "config.yaml cannot be read" in caplog.text and caplog.text.count("a line of") == 2
    (tmp_path / "config.yaml").write_text("- no\n- settings\n")
    assert read_run(tmp_path).settings == {}


def test_a_run_is_read_without_loading_torchs_trainer():
    code = (
        "import sys, sur.analysis.reports.runs; "
        "print(sorted({'accelerate', 'sur.training.fit', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_report_needs_nothing_of_the_web_app():
    code = (
        "import sys, sur.analysis.reports.store_report; "
        "print([name for name in sys.modules if name.startswith('sur.analysis.web')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_broken_picture_is_left_out_and_said(run, evaluation, tmp_path):  # noqa: F811
    (line, *_) = picture_lines([read_run(run.run_dir)], 6)
    assert line.plain is not None
    content = line.plain.read_bytes()
    try:
        line.plain.write_bytes(content[: len(content) // 2])
        with pytest.raises(ImageError, match="corrupt or truncated"):
            picture_uri(line.plain)
        line.plain.write_bytes(b"no picture")
        with pytest.raises(ImageError, match="not a readable image"):
            picture_uri(line.plain)
        page = write_store_report(run.store.path, [run.run_dir], tmp_path / "a.html").read_text()
    finally:
        line.plain.write_bytes(content)
    assert page.count("a picture that cannot be read") == 1 and 'src=""' not in page


def test_damaged_values_and_rows_without_a_picture_are_left_out_of_the_page(tmp_path, caplog):
    store = Store.create(tmp_path / "store.zarr", 4)
    store.add_rows(RowRecord(row_id(str(n), "", None), str(n), "", "") for n in range(8))
    arrays = {"states": ArraySpec("float32", (3, 2)), "length": ArraySpec("int32", ())}
    for name in ("llm.a", "llm.b"):
        store.ensure_feature(FeatureSpec(name, "llm", {"model": name}, arrays))
        for partition in range(2):
            states, length = np.ones((4, 3, 2), np.float32), np.full(4, 2, np.int32)
            store.write_partition(name, partition, {"states": states, "length": length})
    shard = sorted(p for p in (store.path / "features" / "llm.a" / "length").rglob("*") if p.name.endswith("1"))[-1]
    shard.write_bytes(bytes(len(shard.read_bytes())))
    page = write_store_report(store.path, [], tmp_path / "a.html").read_text()
    assert "8 rows in 2 partitions" in page and "<code>llm.b</code></h2>" in page
    assert "partition 1 of llm.a is not shown" in caplog.text and "no statistics of llm.a" in caplog.text
    assert page.count("<figure>") == 8 and "<img" not in page


def test_runs_are_named_by_as_much_of_their_paths_as_tells_them_apart():
    assert run_names([Path("runs/a"), Path("runs/b")]) == ["a", "b"]
    assert run_names([Path("x/one/run"), Path("x/two/run")]) == ["one/run", "two/run"]


def test_a_chart_of_many_dimensions_keeps_the_largest(shapes_config):
    store = Store.open(shapes_config.store.path)
    name = next(name for name in store.features() if name.startswith("llm."))
    statistics = feature_statistics(store, name)
    chart = next(chart for chart in feature_charts(statistics).charts if "magnitude" in chart.title)
    assert len(chart.heights) <= MOST_BARS < statistics.dim
    assert np.isclose(chart.highest, max(statistics.dimension_largest))


def test_a_config_file_names_the_store_and_its_run(shapes_config, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])  # the config's models are relative to it
    target = tmp_path / "a.html"
    done = CliRunner().invoke(app, ["report", str(shapes_config.run_dir / "config.yaml"), "--to", str(target)])
    assert done.exit_code == 0, done.output
    assert target.stat().st_size > 10_000 and "<h1>The run</h1>" in target.read_text()

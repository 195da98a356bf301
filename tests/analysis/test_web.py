"""`sur view` over HTTP: what pages show, filters against plain Python, growth beside a writer, and what is refused."""

import io
import json
import re
import shutil
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from tiny_run import save_config_file, save_models, save_rows, store_files

from sur.analysis.store.neighbours import Neighbours
from sur.analysis.store.pictures import LatentPictures
from sur.analysis.store.statistics import feature_statistics
from sur.analysis.store.table import State
from sur.analysis.store.watch import StoreWatch
from sur.analysis.web.app import create_app, listen, serve_app
from sur.analysis.web.background import Jobs
from sur.analysis.web.filters import NO_DATASET, PAGE_ROWS, MatchCache, RowFilter, matching
from sur.analysis.web.row_pages import marked
from sur.analysis.web.security import POLICY, is_loopback
from sur.analysis.web.thumbnails import Thumbnails
from sur.analysis.web.viewer import Viewer
from sur.cache import ArraySpec, CacheError, FeatureSpec, RowRecord, Store, row_id
from sur.config.run import load_config
from sur.features.extraction import extract
from sur.support.errors import ConfigError
from sur.support.images import encode

WORDS = ("red", "blue", "a pair of", "cats", "Dogs", "under", "the rain")
LENGTHS = FeatureSpec("text.a", "text", {"model": "a"}, {"states": ArraySpec("float32", (9, 4)), "length": ArraySpec("int32", ())})  # fmt: skip  # noqa: E501
POOLED = FeatureSpec("llm.b", "llm", {"model": "b", "layer": 3}, {"states": ArraySpec("float32", (4,))})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Path of a config whose store is complete: ten rows with pictures and one that is quarantined."""
    folder = tmp_path_factory.mktemp("view")
    path = save_config_file(folder, save_models(folder / "models"), save_rows(folder / "rows"))
    extract(load_config(path))
    return load_config(path)


@contextmanager
def opened(viewer, host="127.0.0.1", address="localhost"):
    """A client of the app, once the store is read; pages asked for before it show what is read so far."""
    with TestClient(create_app(viewer, host), base_url=f"http://{address}") as client:
        assert viewer.watch.all_read.wait(60)
        yield client


@pytest.fixture(scope="module")
def client(run):
    with opened(Viewer(run.store.path, [run.run_dir]), address="127.0.0.1:8600") as client:
        yield client


@pytest.fixture
def store(tmp_path):
    """Thirty rows in partitions of eight; features over the first three, every fourth row without lengths."""
    store = Store.create(tmp_path / "store.zarr", rows_per_partition=8)
    store.add_rows(made_row(i) for i in range(30))
    ids = [row.id for row in store.rows()]
    store.set_members("even", ids[::2])
    store.set_members("first", ids[:10])
    for spec in (LENGTHS, POOLED):
        store.ensure_feature(spec)
        for partition in range(3):
            fill(store, spec, partition)
    return store


def made_row(i: int) -> RowRecord:
    random = np.random.default_rng(i)
    simple = f"{i}: " + " ".join(random.choice(WORDS, 3))
    complex = " ".join(random.choice(WORDS, 2)).upper() if i % 3 else ""
    return RowRecord(row_id(simple, complex, None), simple, complex, f"{i}.png")


def fill(store: Store, spec: FeatureSpec, partition: int) -> None:
    rows = store.rows(partition)
    values = {
        name: np.random.default_rng(partition).normal(size=(len(rows), *array.shape)).astype(array.dtype)
        for name, array in spec.arrays.items()
    }
    missing = {}
    if "length" in values:
        values["length"] = np.array([row.slot * 7 % 10 for row in rows], dtype=np.int32)
        missing = {place: "no <b>complex</b> prompt" for place, row in enumerate(rows) if row.slot % 4 == 1}
    store.write_partition(spec.name, partition, values, missing)


def text_of(answer) -> str:
    assert answer.status_code == 200, answer.text
    return unescape(answer.text)


def row_ids(page: str) -> list[str]:
    """Ids of the rows that a list shows, in its order."""
    return re.findall(r'<tr data-row="/rows/([0-9a-f]{32})"', page)


def test_the_overview_shows_every_feature_with_its_numbers(client, run):
    page = text_of(client.get("/"))
    summary = Store.open(run.store.path).describe()
    assert f"{summary.n_rows} rows in {summary.n_partitions} partitions" in page
    for feature in summary.features:
        line = page[page.index(f"<code>{feature.name}</code>") :].split("</tr>")[0]
        assert f"{feature.partitions_done} of {feature.partitions_total}" in line
        cells = re.findall(r'<td class="n">([^<]*)</td>', line)
        assert cells[1:3] == [str(feature.rows_done - feature.rows_missing), str(feature.rows_missing)]
    assert all(asset.name in page for asset in summary.assets)


def test_the_list_shows_every_row_once_and_in_order(client, run):
    page = text_of(client.get("/rows"))
    rows = Store.open(run.store.path).rows()
    assert row_ids(page) == [row.id.hex() for row in rows]
    assert all(row.simple in page and row.complex in page for row in rows)


def test_a_row_shows_what_each_feature_holds(client, run):
    row = Store.open(run.store.path).rows()[3]
    page = text_of(client.get(f"/rows/{row.id.hex()}"))
    assert row.simple in page and row.complex in page and row.id.hex() in page
    assert all(name in page for name in Store.open(run.store.path).features())
    assert row.simple in text_of(client.get(f"/rows/{row.id.hex()[:9]}"))  # as much of the id as tells it


def test_pictures_are_the_decoded_latents(client, run):
    store = Store.open(run.store.path)
    address = re.findall(r'src="(/pictures/[^"]+)"', text_of(client.get("/rows")))[4]
    answer = client.get(address)
    assert answer.headers["content-type"] == "image/png" and "max-age=3600" in answer.headers["cache-control"]
    expected = LatentPictures(store).picture(4)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), np.asarray(expected))
    assert client.get(address, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert client.get("/pictures/" + "0" * 32).status_code == 404


def test_nearest_rows_are_those_of_the_inspection(client, run, monkeypatch, tmp_path):
    monkeypatch.setenv("SUR_CACHE", str(tmp_path))
    store, name = Store.open(run.store.path), "text.pipe.simple"
    row = store.rows()[2]
    page = wait_for(lambda: text_of(client.get(f"/rows/{row.id.hex()}/neighbours?feature={name}")), "data-again")
    found = re.findall(r'compare\?row=\w+&row=(\w+)"', page)
    nearest = Neighbours(store, name, standardised=True).nearest(row.slot, 12)
    assert found == [store.rows()[each.slot].id.hex() for each in nearest] and found
    assert [f"{each.similarity:.3f}" for each in nearest] == re.findall(r"<b>(-?[\d.]+)</b>", page)


def test_rows_side_by_side_have_pictures_marked_words_and_cosines(client, run, monkeypatch, tmp_path):
    monkeypatch.setenv("SUR_CACHE", str(tmp_path))
    rows = Store.open(run.store.path).rows()[:3]
    address = "/compare?" + "&".join(f"row={row.id.hex()}" for row in rows)
    page = wait_for(lambda: text_of(client.get(address)), "data-reload")
    assert page.count('width="256"') == 3
    assert page.count("1, itself") == len(Store.open(run.store.path).features())
    assert "<mark>" in page
    for wrong in ("", f"?row={rows[0].id.hex()}", "?" + "&".join(f"row={row.id.hex()}" for row in [*rows, *rows])):
        assert client.get(f"/compare{wrong}").status_code == 422


def wait_for(get, sign: str) -> str:
    """A page, as soon as it no longer says that something is being computed."""
    for _ in range(600):
        if sign not in (page := get()):
            return page
        time.sleep(0.05)
    raise AssertionError(f"still {sign} after half a minute")


def test_statistics_are_those_of_the_inspection(client, run):
    name = "text.pipe.simple"
    page = wait_for(lambda: text_of(client.get(f"/features/{name}")), "data-reload")
    expected = feature_statistics(Store.open(run.store.path), name)
    assert f"<dd>{expected.mean:.4g}</dd>" in page and f"<dd>{expected.deviation:.4g}</dd>" in page
    assert f"median {expected.norms.median:.4g}" in page
    bars = re.findall(r"<title>[^<]*: ([\d,]+) rows</title>", page)
    assert sum(int(each.replace(",", "")) for each in bars) == expected.rows
    assert client.get(f"/features/{name}?renew=true", follow_redirects=False).status_code == 303
    assert client.get("/features/other").status_code == 404


def test_quarantined_rows_are_shown_with_reason_and_remedy(client):
    page = text_of(client.get("/quarantine"))
    assert "absent.png" in page and ": 1</h2>" in page


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"q": "RED"},
        {"q": "cats the rain"},
        {"q": "red blue", "dataset": "even"},
        {"dataset": "first"},
        {"dataset": NO_DATASET},
        {"feature": "text.a", "state": "missing"},
        {"feature": "text.a", "state": "value", "dataset": "even"},
        {"feature": "llm.b", "state": "pending"},
        {"state": "pending"},
        {"feature": "text.a", "low": 3, "high": 6},
        {"feature": "text.a", "low": 8, "order": "longest"},
        {"feature": "text.a", "state": "value", "order": "shortest"},
        {"feature": "llm.b", "low": 1},
        {"feature": "none"},
        {"dataset": "none"},
    ],
)
def test_filters_agree_with_plain_python(store, query):
    table = StoreWatch(store.path).refresh()
    assert matching(table, RowFilter(**query)).tolist() == plainly(store, **query)


def plainly(store, q="", dataset="", feature="", state="", low=None, high=None, order="slot"):
    """Rows that pass, found one by one from what `store` was made from."""
    passed = []
    for row in store.rows():
        i, text = row.slot, (row.simple + "\n" + row.complex).lower()
        done, lacks = i < 24, i % 4 == 1
        states = {"text.a": "pending" if not done else "missing" if lacks else "value"}
        states["llm.b"] = "value" if done else "pending"
        length = i * 7 % 10 if states["text.a"] == "value" else None
        inside = {"even": i % 2 == 0, "first": i < 10}
        ok = all(word in text for word in q.lower().split())
        ok &= dataset == "" or (not any(inside.values()) if dataset == NO_DATASET else inside.get(dataset, False))
        ok &= feature in ("", *states)
        ok &= state == "" or state in ([states[feature]] if feature in states else states.values())
        if low is not None or high is not None:
            ok &= feature == "text.a" and length is not None and (low or 0) <= length <= (high or 99)
        if ok:
            passed.append((i, length or 0))
    if order != "slot":
        passed.sort(key=lambda each: each[1] * (-1 if order == "longest" else 1))
    return [i for i, _ in passed]


def test_an_address_keeps_the_filter_and_turns_the_page():
    wanted = RowFilter(q="a & b", dataset="even", low=3)
    assert RowFilter(**dict(httpx.QueryParams(wanted.query(offset=96)))) == replace_offset(wanted, 96)
    assert RowFilter().query() == "" and RowFilter(low="").low is None


def replace_offset(wanted: RowFilter, offset: int) -> RowFilter:
    return wanted.model_copy(update={"offset": offset})


def test_pages_hold_every_row_once_and_say_where_they_are(tmp_path):
    store = Store.create(tmp_path / "store.zarr", rows_per_partition=64)
    store.add_rows(made_row(i) for i in range(2 * PAGE_ROWS + 5))
    with opened(Viewer(store.path)) as client:
        address, seen = "/rows", []
        while address:
            page = text_of(client.get(address))
            seen += row_ids(page)
            address = next(iter(re.findall(r'<link rel="next" href="([^"]+)"', page)), None)
    assert seen == [row.id.hex() for row in store.rows()]
    assert f"{2 * PAGE_ROWS + 1}–{2 * PAGE_ROWS + 5} of {2 * PAGE_ROWS + 5}" in page


def test_prompts_and_reasons_cannot_be_markup(tmp_path, store):
    simple = "<script>alert(1)</script> \"quoted\" & 'more'"
    store.add_rows([RowRecord(row_id(simple, "", None), simple)])
    with opened(Viewer(store.path)) as client:
        listed = client.get("/rows").text
        assert "alert(1)" in listed and "<script>alert" not in listed
        assert "<b>complex" not in client.get("/rows?feature=text.a&state=missing").text
        assert "<script>alert" not in client.get("/rows", params={"q": simple}).text
        own = client.get(f"/rows/{row_id(simple, '', None).hex()}").text
        assert "alert(1)" in own and "<script>alert" not in own


def test_new_rows_partitions_features_and_data_sets_are_seen_while_it_runs(store):
    watch = StoreWatch(store.path)
    before = watch.refresh()
    states, lengths = before.features["text.a"].states.copy(), before.tokens()["text.a"].copy()
    assert watch.refresh() is before  # nothing new
    store.add_rows(made_row(i) for i in range(30, 37))
    fill(store, LENGTHS, 3)
    other = FeatureSpec("llm.c", "llm", {"model": "c"}, {"states": ArraySpec("float32", (2,))})
    store.ensure_feature(other)
    fill(store, other, 0)
    store.set_members("new", [store.rows()[-1].id])
    after = watch.refresh()
    assert (before.n_rows, after.n_rows) == (30, 37) and after.number > before.number
    assert np.array_equal(before.features["text.a"].states, states)  # the older table stays as it was
    assert np.array_equal(before.tokens()["text.a"], lengths)
    assert after.features["text.a"].count(State.PENDING) == 7
    assert after.features["llm.c"].count(State.VALUE) == 8
    assert after.members["new"].tolist() == [False] * 36 + [True]
    assert after.hex_id(36) == store.rows()[-1].id.hex() and after.find(after.hex_id(36)) == 36


def test_a_feature_made_anew_takes_the_place_of_the_old_one(store):
    watch = StoreWatch(store.path)
    watch.refresh()
    store.drop_feature("llm.b")
    anew = replace(POOLED, identity={"model": "other"})
    store.ensure_feature(anew)
    fill(store, anew, 1)
    column = watch.refresh().features["llm.b"]
    assert column.spec == anew and column.partitions_done == 1
    assert Store.open(store.path).read("llm.b", np.array([8]))["states"].shape == (1, 4)
    store.drop_feature("llm.b")
    assert "llm.b" not in watch.refresh().features


def test_status_follows_a_writer_without_being_asked_to_read(store):
    viewer = Viewer(store.path)
    viewer.watch.seconds = 0.05
    with opened(viewer) as client:
        before = client.get("/status").json()
        fill(store, POOLED, 3)
        after = before
        for _ in range(200):
            after = client.get("/status").json()
            if after["done"] > before["done"]:
                break
            time.sleep(0.02)
        assert after["done"] == before["done"] + 1 and after["number"] > before["number"]


def test_damage_is_told_on_the_page_and_what_comes_before_it_is_shown(store):
    shard = sorted(p for p in (store.path / "rows" / "simple").iterdir() if p.name != "zarr.json")[-1]
    content = shard.read_bytes()
    shard.write_bytes(bytes(len(content)))
    viewer = Viewer(store.path)
    viewer.watch.seconds = 0.05
    with opened(viewer) as client:
        trouble = client.get("/status").json()["trouble"]
        assert str(shard) in trouble
        page = text_of(client.get("/rows"))
        assert trouble in page and len(row_ids(page)) == 24
        shard.write_bytes(content)
        for _ in range(500):
            if not client.get("/status").json()["trouble"]:
                break
            time.sleep(0.02)
        assert len(row_ids(text_of(client.get("/rows")))) == 30


def test_a_damaged_shard_of_lengths_stops_only_its_own_partition(store):
    fill(store, POOLED, 3)
    shard = sorted(p for p in (store.path / "features" / "text.a" / "length").rglob("*") if p.name != "zarr.json")[0]
    content = shard.read_bytes()
    shard.write_bytes(bytes(len(content)))
    watch = StoreWatch(store.path)
    table = watch.refresh()
    assert table.n_rows == 30 and str(shard) in watch.trouble
    assert sorted(np.unique(table.features["text.a"].states[:8])) == [State.PENDING]
    assert (table.features["text.a"].partitions_done, table.features["llm.b"].partitions_done) == (2, 4)
    assert table.members["first"].sum() == 10
    shard.write_bytes(content)
    watch.store = Store.open(store.path)
    assert watch.refresh().features["text.a"].partitions_done == 3 and not watch.trouble


def test_a_row_that_is_not_read_yet_is_not_said_to_be_absent(store):
    viewer, row = Viewer(store.path), store.rows()[0].id.hex()
    viewer.watch.start = lambda: None  # as while a large store is read  # pyright: ignore[reportAttributeAccessIssue]
    with TestClient(create_app(viewer), base_url="http://localhost") as client:
        assert client.get(f"/rows/{row}").status_code == 503
        assert "reload in a moment" in client.get(f"/rows/{row}").text


def test_neighbours_that_are_not_read_yet_are_left_out(store):
    table = StoreWatch(store.path).refresh()
    beyond = [row.slot for row in store.rows()][20:]
    filling = replace(table, ids=table.ids[:20], slots=table.slots[:20])
    assert filling.place_of(int(table.slots[19])) == 19 and all(filling.place_of(slot) is None for slot in beyond)
    viewer = Viewer(store.path)
    viewer.watch.refresh()
    column = {name: replace(c, states=c.states[:20]) for name, c in table.features.items()}
    with opened(viewer) as client:
        viewer.watch.stop()  # a look that is not over yet would put the whole table back
        viewer.watch.table = replace(filling, features=column)
        address = f"/rows/{table.hex_id(0)}/neighbours?feature=llm.b"
        page = wait_for(lambda: text_of(client.get(address)), "data-again")
        assert 0 < page.count("<figure>") < 12


def test_nothing_is_written_to_the_store(client, run):
    before = store_files(Path(run.store.path))
    row = Store.open(run.store.path).rows()[0].id.hex()
    for address in ("/", "/rows?q=cats", f"/rows/{row}", "/features/vae.pipe.32", "/runs", "/quarantine"):
        assert client.get(address).status_code == 200
    assert store_files(Path(run.store.path)) == before


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8600", "127.0.0.1.evil.example", "", "0.0.0.0", "10.0.0.7"]
)
def test_a_foreign_host_name_is_refused(client, host):
    answer = client.get("/rows", headers={"Host": host})
    assert answer.status_code == 421 and "cats" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8600", "LOCALHOST:9", "[::1]:8600", "[::1]"])
def test_loopback_is_answered_whatever_the_port(client, host):
    assert client.get("/status", headers={"Host": host}).status_code == 200


def test_served_to_others_it_answers_to_addresses_and_its_own_names_only(store):
    with opened(Viewer(store.path), "0.0.0.0", "10.1.2.3:8600") as client:
        assert client.get("/status").status_code == 200
        assert client.get("/status", headers={"Host": socket.gethostname()}).status_code == 200
        assert client.get("/status", headers={"Host": "[fe80::1]:8600"}).status_code == 200
        assert client.get("/status", headers={"Host": "evil.example"}).status_code == 421
    for host, name in (
        ("127.0.0.2", "127.0.0.2:8600"),
        ("::1", "[::1]:8600"),
        ("0:0:0:0:0:0:0:1", "[0:0:0:0:0:0:0:1]:1"),
    ):
        with opened(Viewer(store.path), host, name) as client:
            assert client.get("/status").status_code == 200
            assert client.get("/status", headers={"Host": "127.0.0.3"}).status_code == 421
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org") and is_loopback("::1")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_reading_is_possible(client, method):
    assert client.request(method, "/rows").status_code == 405


@pytest.mark.parametrize("path", ["/", "/rows", "/status", "/look.css", "/static/view.js", "/runs", "/rows/none"])
def test_head_is_answered_as_get_is_without_the_content(client, path):
    page, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (page.status_code, b"")
    same = ("content-type", "content-length", "content-security-policy")
    assert {name: head.headers.get(name) for name in same} == {name: page.headers.get(name) for name in same}


def test_pages_elsewhere_can_link_here_but_take_nothing(client):
    taken = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    framed = followed | {"Sec-Fetch-Dest": "iframe"}
    assert [client.get("/rows", headers=each).status_code for each in (taken, followed, framed)] == [403, 200, 403]
    other_port = taken | {"Sec-Fetch-Site": "same-site"}
    assert client.get("/rows", headers=other_port).status_code == 403


@pytest.mark.parametrize("address", ["/", "/rows", "/nowhere", "/static/view.js", "/static/../app.py", "/rows?low=x"])
def test_every_answer_has_a_strict_policy(client, address):
    answer = client.get(address)
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY and answer.headers["x-content-type-options"] == "nosniff"
    assert "style=" not in answer.text and "onclick" not in answer.text


def test_what_is_asked_wrongly_is_told(client):
    for address in ("/rows?low=x", "/rows?offset=-1", "/rows?colour=red", "/rows?order=random"):
        assert client.get(address).status_code == 422
    assert client.get("/rows/ffffffffffffffff").status_code == 404
    assert client.get("/rows/..%2F..%2Fetc").status_code == 404
    assert client.get("/static/..%2F..%2Fapp.py").status_code == 404


def test_words_that_only_one_prompt_has_are_marked():
    pieces = marked(["two red cats, sitting", "Two blue cats", "", "two cats."])
    assert ["".join(piece.text for piece in each) for each in pieces] == ["two red cats, sitting", "Two blue cats", "", "two cats."]  # fmt: skip  # noqa: E501
    own = [[piece.text for piece in each if piece.own] for each in pieces]
    assert own == [["red", "sitting"], ["blue"], [], []]
    assert [[p.text for p in each if p.own] for each in marked(["a b c", "a C d", "a"])] == [["b"], ["d"], []]


def test_a_thumbnail_is_decoded_once_and_the_oldest_leave():
    asked = []

    def picture(slot: int) -> Image.Image:
        asked.append(slot)
        return Image.fromarray(np.random.default_rng(slot).integers(0, 255, (64, 64, 3), dtype=np.uint8))

    thumbnails = Thumbnails(picture, budget_bytes=30_000)  # noise does not compress: two pictures of 12 kB
    threads = [threading.Thread(target=thumbnails.get, args=("a", 0, 192)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [0]
    for name, slot in (("b", 1), ("a", 0), ("c", 2), ("a", 0), ("b", 1)):
        thumbnails.get(name, slot, 192)
    assert asked == [0, 1, 2, 1]  # b was used least lately when c came
    assert thumbnails.get("c", 2, 32).kind == "image/webp"


def test_a_thumbnail_that_replaces_another_is_counted_once():
    thumbnails, made = Thumbnails(lambda slot: Image.new("RGB", (8, 8))), encode(Image.new("RGB", (8, 8)), 8)
    for _ in range(3):
        thumbnails._store(("a", 8), made)
    assert thumbnails._bytes == len(made.content)


def test_answers_are_remembered_until_the_table_changes(store, monkeypatch):
    searches = []
    monkeypatch.setattr("sur.analysis.web.filters.matching", lambda t, w: searches.append(w) or matching(t, w))
    found, table = MatchCache(size=2), StoreWatch(store.path).refresh()
    for offset in (0, 48, 96):
        found(table, RowFilter(q="red", offset=offset))
    assert len(searches) == 1
    found(replace(table, number=table.number + 1), RowFilter(q="red"))
    assert len(searches) == 2


def test_background_work_that_fails_is_told_and_can_be_tried_again():
    jobs, tries = Jobs(), []

    def work(progress):
        tries.append(1)
        progress(1, 2)
        if len(tries) == 1:
            raise CacheError("damaged")
        return "made"

    def ended(**options):
        for _ in range(500):
            if (job := jobs.get("key", 1, work, **options)).ended:
                return job
            time.sleep(0.01)
        raise AssertionError("never ended")

    assert (ended().error, ended().result) == ("damaged", None)
    assert ended(renew=True).error == "damaged"  # of the same version
    jobs.get("key", 1, work, retry=True)
    assert (ended().result, ended().total, len(tries)) == ("made", 2, 2)


def test_a_port_that_is_taken_is_told_with_the_remedy():
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="--port 0"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match="--host nowhere.invalid"):
        listen("nowhere.invalid", 0)


def test_a_free_port_is_printed_and_answers(store):
    import uvicorn

    said, servers = [], []
    started = threading.Event()
    run = uvicorn.Server.run

    def remembered(self, sockets=None):
        servers.append(self)
        run(self, sockets)

    def ready(address):
        said.append(address)
        started.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.Server, "run", remembered)
        thread = threading.Thread(target=serve_app, args=(create_app(Viewer(store.path)), "127.0.0.1", 0, ready))
        thread.start()
        assert started.wait(10)
        answer = httpx.get(said[0], timeout=10)
        assert answer.status_code == 200 and "30 rows" in answer.text
        servers[0].should_exit = True
        thread.join(10)
    assert not thread.is_alive() and re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+/", said[0])


def test_a_folder_that_is_no_run_is_refused_at_the_start(store, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run's folder"):
        Viewer(store.path, [tmp_path])


def test_a_run_s_own_report_comes_without_scripts_and_apart(store, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "curves.jsonl").write_text(json.dumps({"step": 1, "train": {"total": 0.5}}) + "\n" + '{"step": 2, "tra')
    (folder / "report.html").write_text("<style>b {}</style><script>alert(1)</script>")
    shutil.copytree(folder, tmp_path / "other" / "run")
    with opened(Viewer(store.path, [folder, tmp_path / "other" / "run"])) as c:
        answer = c.get("/runs/0/report")
        policy = answer.headers["content-security-policy"]
        assert "sandbox" in policy and "script-src" not in policy and "default-src 'none'" in policy
        page = text_of(c.get("/runs"))
        assert "other/run" in page and "2 runs side by side" in page
        plot = c.get(re.findall(r'src="(/runs/plot[^"]+)"', page)[0])
        assert plot.headers["content-type"] == "image/svg+xml" and b"<svg" in plot.content
        assert c.get("/runs/2/report").status_code == 404 and c.get("/runs/plot?name=other").status_code == 404

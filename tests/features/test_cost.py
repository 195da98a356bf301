"""The sizes of `sur plan --cluster`: against formulas, and against the requests that a real extraction makes."""

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tiny_run import save_config_file, save_models, save_rows
from typer.testing import CliRunner

from sur.cache.storage import bucket
from sur.cli.app import app
from sur.config.run import load_config
from sur.features.cost import (
    MULTIPART_BYTES,
    START_REQUESTS,
    Assumptions,
    EncoderCost,
    Scenario,
    assume,
    cost,
    encoder_costs,
    requests_of_a_partition,
    scenarios,
)
from sur.features.extraction import Extraction, extract
from sur.features.prepare import prepare
from sur.support.errors import ConfigError

PUBLISHED = [
    "configs/sd15-llama13b-released.yaml",
    "base_model=tests/published/sd15",
    "llm.model=tests/published/llama-13b",
]


@pytest.fixture(scope="module")
def released():
    return load_config(PUBLISHED[0], PUBLISHED[1:])


def test_the_llm_s_operations_follow_from_its_published_sizes(released):
    tokens, layers, width, inner = 40, 40, 5120, 13824
    each_layer = 4 * width * width + 3 * width * inner
    expected = 2 * tokens * layers * (each_layer + 2 * tokens * width)  # the products, then scores and their sums
    found = {each.key: each for each in encoder_costs(released, Assumptions(tokens=tokens))}
    assert found["llm"].flops == pytest.approx(expected, rel=0.01)
    assert found["vae"].flops == pytest.approx(2 * 1.1e12, rel=0.03)  # two views; 1.1 TFLOP at 512 pixels by hand


def test_costs_add_up(released):
    encoders = [EncoderCost("llm", 1, 2, 1000, 1e12), EncoderCost("vae", 1, 2, 500, 1e12)]
    assumed = Assumptions(gpu_flops=1e14, utilisation=0.5, unique=0.5, pictures=100, network_bytes=1e6, task_seconds=1)
    made = cost(released, Scenario(10_000, 4), encoders, assumed)
    rows, each_task = released.store.rows_per_partition, released.flow.partitions_per_task
    assert made.partitions == -(-10_000 // rows)
    assert made.shards == 4 * made.partitions
    assert made.tasks == 2 * -(-made.partitions // each_task)
    assert made.bytes == 10_000 * 1500
    assert made.gpu_hours == pytest.approx(10_000 * 0.5 * 2e12 / 5e13 / 3600)
    assert made.hours == pytest.approx(
        max(made.gpu_hours / 4, 10_000 / 400 / 3600, 2 * made.bytes / 4e6 / 3600) + made.tasks / 4 / 3600
    )


def test_large_shards_are_sent_in_parts(released):
    small = EncoderCost("vae", 1, 1, 1, 0.0)
    rows = released.store.rows_per_partition
    large = EncoderCost("vae", 1, 1, 3 * MULTIPART_BYTES // rows, 0.0)
    difference = requests_of_a_partition(rows, [large]) - requests_of_a_partition(rows, [small])
    assert difference == 3 + 2 - 1  # three parts, their start and their end, instead of one put


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """Requests for features, and for rows at a worker's start, of an extraction of one partition and of three."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    access = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1", "ENDPOINT_URL": url}
    made, counts = [], {}

    def counting(real):
        def counted(store, key, *args, **options):
            made.append(str(key))
            return real(store, key, *args, **options)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**access, "ALLOW_HTTP": "true"}.items():
            patch.setenv(f"AWS_{name}", value)
        boto3.client("s3", region_name="us-east-1", endpoint_url=url).create_bucket(Bucket="sizes")
        for name in ("put", "get", "get_range", "head", "delete"):
            patch.setattr(bucket.obstore, name, counting(getattr(bucket.obstore, name)))
        for pictures in (2, 6):  # one partition, and three
            folder = tmp_path_factory.mktemp("sizes")
            models, rows = save_models(folder / "models"), save_rows(folder / "rows", pictures=pictures, broken=False)
            places = [f"store.path=s3://sizes/{pictures}", "loss.alignment.form=tokens"]
            config = load_config(save_config_file(folder, models, rows), places)
            prepare(config, list(Extraction(config).encoders.values()))
            made.clear()
            extract(config)
            counts[pictures] = sum("features/" in key for key in made)
            made.clear()
            with Extraction(config) as worker:  # whose partitions others have computed already
                for key in worker.encoders:
                    worker.encode(key, [])
            counts[pictures, "start"] = sum(key.startswith(("receipts/rows/", "rows/")) for key in made)
    server.stop()
    return config, counts


def test_requests_are_those_of_a_real_extraction_into_a_bucket(requests):
    config, counts = requests
    expected = requests_of_a_partition(config.store.rows_per_partition, encoder_costs(config, Assumptions()))
    assert (counts[6] - counts[2]) / 2 == pytest.approx(expected, rel=0.1)


def test_a_worker_reads_the_rows_once(requests):
    _, counts = requests
    assert (counts[6, "start"] - counts[2, "start"]) / 2 == pytest.approx(START_REQUESTS, rel=0.15)


def test_scenarios_are_the_documented_ones_unless_told_otherwise():
    assert [each.rows for each in scenarios([], [])] == [57_000, 10_000_000, 1_000_000_000]
    assert scenarios([5], [1, 2]) == (Scenario(5, 1), Scenario(5, 2))


@pytest.mark.parametrize(
    "setting", ["speed=1", "gpu_flops", "gpu_flops=fast", "tokens=0", "tokens=inf", "utilisation=3"]
)
def test_an_assumption_that_is_none_is_refused(setting):
    with pytest.raises(ConfigError, match="--assume"):
        assume([setting])


def test_the_command_shows_scenarios_and_assumptions():
    done = CliRunner().invoke(app, ["plan", *PUBLISHED, "--cluster", "--rows", "1000", "--gpus", "3"])
    assert done.exit_code == 0, done.output
    assert "1,016 GFLOP" in done.output
    assert "utilisation=0.35" in done.output
    refused = CliRunner().invoke(app, ["plan", *PUBLISHED, "--rows", "1000"])
    assert isinstance(refused.exception, ConfigError)

"""Training from the cache: the same as without it, exact after an interruption, and without any large model."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sur.adapter.adapter import Adapter
from sur.adapter.losses.batch import RowBatch
from sur.cache import IdentityMismatch, IncompleteFeature, Store, row_id
from sur.config.load import save_config
from sur.config.run import RunConfig
from sur.config.run_folder import RunFolder
from sur.features.encoders import build_encoders
from sur.features.extraction import extract
from sur.models.locate import locate
from sur.support.errors import ConfigError
from sur.training.batches import needed_features, open_loader, row_batches
from sur.training.fit import fit
from sur.training.setup import build_training


def changed(config: RunConfig, **sections) -> RunConfig:
    """The config with some values of some sections replaced."""
    values = config.model_dump()
    for section, update in sections.items():
        values[section] = {**values[section], **update} if isinstance(update, dict) else update
    return RunConfig.model_validate(values)


def losses(config: RunConfig, batches) -> list[dict[str, float]]:
    """Losses of every step of a fresh training on `batches`."""
    training = build_training(Store.open(config.store.path), config)
    return [step.losses for step in training.run(batches)]


def test_a_run_writes_an_adapter_checkpoints_and_curves(own_config):
    steps = []
    folder = fit(own_config, steps.append)
    assert folder == own_config.run_dir / "adapter"
    assert [step.step for step in steps] == list(range(1, 13))
    adapter = Adapter.from_pretrained(folder)
    assert adapter.trained_on["text"]["consumes"] == "simple"
    assert adapter.output.weight.abs().max() > 0  # pyright: ignore[reportAttributeAccessIssue]
    records = [json.loads(line) for line in (own_config.run_dir / "curves.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == list(range(1, 13))
    assert sum("validation" in r for r in records) == 2
    files = {path.suffix for path in own_config.run_dir.rglob("*") if path.is_file()}
    assert files == {".json", ".jsonl", ".safetensors"}


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_stopped_at_any_step_ends_as_an_uninterrupted_one(own_config, optimiser):
    own_config = changed(own_config, train={"optimiser": optimiser})
    whole = load_file(fit(own_config) / "adapter.safetensors")
    interrupted = own_config.model_copy(update={"run_dir": own_config.run_dir.parent / "interrupted"})

    def stop_at(last):
        def on_step(step):
            if step.step == last:
                os.kill(os.getpid(), signal.SIGINT)

        return on_step

    for last in (3, 7):
        with pytest.raises(KeyboardInterrupt, match=f"stopped at step {last}"):
            fit(interrupted, stop_at(last))
    resumed = load_file(fit(interrupted) / "adapter.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    curves = [(run.run_dir / "curves.jsonl").read_text() for run in (own_config, interrupted)]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint_to_the_same_weights(own_config):
    whole = load_file(fit(own_config) / "adapter.safetensors")
    killed = own_config.model_copy(update={"run_dir": own_config.run_dir.parent / "killed"})
    program = (
        "import sys; from sur.config.run import load_config; from sur.training.fit import fit;"
        "fit(load_config(sys.argv[1]), lambda s: print(s.step, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(save_config(killed))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 6:
            process.kill()
            break
    process.wait()
    process.stdout.close()
    started = time.monotonic()
    seen = []
    resumed = load_file(fit(killed, lambda s: seen.append(s.step)) / "adapter.safetensors")
    assert seen[0] in (5, 9), f"expected to go on after a checkpoint, went on at {seen} ({time.monotonic() - started})"
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_finished_run_is_not_trained_again(own_config):
    fit(own_config)
    seen = []
    fit(own_config, seen.append)
    assert seen == []


def test_a_run_with_other_settings_refuses_the_old_checkpoint(own_config):
    fit(own_config)
    was = own_config.train.learning_rate
    with pytest.raises(ValueError, match=rf"trained with train.learning_rate = {was}, the config says 0.5"):
        fit(changed(own_config, train={"learning_rate": 0.5}))


def test_a_checkpoint_from_before_an_option_was_there_is_gone_on_from(own_config):
    def stop(step) -> None:
        if step.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(own_config, stop)
    state = own_config.run_dir / "checkpoints" / "step-000005" / "state.json"
    content = json.loads(state.read_text())
    for name in ("accumulate", "ema_decay", "compile"):
        del content["settings"]["train"][name]
    del content["processes"], content["best"], content["sha256"]
    state.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"trained with train.ema_decay = 0.0, the config says 0.9"):
        fit(changed(own_config, train={"ema_decay": 0.9}))
    steps = []
    fit(own_config, steps.append)
    assert steps[0].step == 6


@pytest.mark.slow
def test_cached_training_equals_training_on_features_encoded_on_the_fly(own_config):
    exact = {"store_dtype": "float32"}
    train = {"steps": 20, "optimiser": "adamw"}  # Muon computes in bfloat16, which makes float32's rounding visible
    config = changed(own_config, llm=exact, text=exact, store={"path": own_config.run_dir / "s.zarr"}, train=train)
    extract(config)
    store = Store.open(config.store.path, writable=True)
    wanted = needed_features(config)
    text_simple, text_complex = build_encoders(text=config.text)
    (llm,) = build_encoders(llm=config.llm)
    rows = {row.slot: row for row in store.rows()}

    def uncached():
        for batch in open_loader(store, config, "train").forever():
            chosen = [rows[int(slot)] for slot in batch.slots]
            simple = text_simple.encode([row.simple for row in chosen]).values[wanted.simple]
            complex_ = text_complex.encode([row.complex or "-" for row in chosen]).values[wanted.complex]
            states = llm.encode([row.simple for row in chosen]).values[wanted.llm]
            longest = states["length"].max()
            yield RowBatch(
                simple=torch.from_numpy(simple["states"]),
                length=torch.from_numpy(simple["length"]).long(),
                complex=torch.from_numpy(complex_["states"]),
                paired=torch.tensor([bool(row.complex) for row in chosen]),
                llm=torch.from_numpy(states["states"][:, :longest]),
                llm_length=torch.from_numpy(states["length"]).long(),
            )

    cached = losses(config, row_batches(open_loader(store, config, "train").forever(), wanted, config.train.seed))
    fresh = losses(config, uncached())
    assert len(cached) == len(fresh) == 20
    for step, (one, other) in enumerate(zip(cached, fresh, strict=True)):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name], rel=1e-5), (step, name)


@pytest.mark.parametrize(
    "loss",
    [
        {"alignment": {"form": "tokens", "measure": "kl"}, "distillation": {"form": "pooled"}},
        {"alignment": {"form": "denoiser"}, "distillation": {"form": "none"}},
        {"alignment": {"form": "attention"}, "denoising": {"weight": 1.0}, "distillation": {"form": "tokens"}},
        {"alignment": {"form": "none"}, "denoising": {"weight": 1.0}, "distillation": {"form": "none"}},
    ],
)
def test_every_form_of_loss_trains_every_parameter_of_the_adapter(loss, own_config):
    config = changed(own_config, loss=loss, train={"steps": 2})
    store = Store.open(config.store.path)
    training = build_training(store, config)
    batches = row_batches(open_loader(store, config, "train").forever(), needed_features(config), 0)
    list(training.run(islice(batches, 2)))
    without = [n for n, p in training.adapter.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    if training.objective.denoiser is not None:
        assert all(p.grad is None for p in training.objective.denoiser.parameters())


def test_the_denoising_loss_sets_in_at_its_first_step(own_config):
    config = changed(own_config, loss={"denoising": {"weight": 1.0, "first_step": 2}}, train={"steps": 4})
    batches = row_batches(
        open_loader(Store.open(config.store.path), config, "train").forever(), needed_features(config), 0
    )
    assert ["denoising" in step for step in losses(config, batches)] == [False, False, True, True]


def test_another_number_of_t5_states_than_was_cached_is_refused(own_config):
    with pytest.raises(ConfigError, match="text.t5_tokens = None, the config says 16"):
        fit(changed(own_config, text={"t5_tokens": 16}))


def test_further_targets_have_to_be_states_of_an_llm(own_config):
    loss = {"distillation": {"form": "pooled", "also": {"text.shapes.complex": 1.0}}}
    with pytest.raises(ConfigError, match="holds no LLM's states but text"):
        fit(changed(own_config, loss=loss))


def test_a_teacher_of_pooled_vectors_trains_with_a_warning(own_config, caplog):
    teacher = {"distillation": {"form": "teacher", "teacher_steps": 1}}
    config = changed(own_config, llm={"pooling": "mean"}, loss=teacher, train={"steps": 3})
    extract(config)
    learned = Adapter.from_pretrained(fit(config)).state_dict()
    assert "learns less from pooled vectors" in caplog.text and all(v.isfinite().all() for v in learned.values())
    store = Store.open(config.store.path)
    slots = open_loader(store, config, "train").manifest_slots
    kept = load_file(RunFolder(config.run_dir).latest_checkpoint() / "state.safetensors")
    vectors = torch.from_numpy(store.read_float32(config.llm.feature_names[-1], slots, "states"))
    torch.testing.assert_close(kept["objective.teacher.mean"], vectors.mean(0))
    torch.testing.assert_close(kept["objective.teacher.factor"], 1 / vectors.std(0))
    caplog.clear()
    tokens = changed(own_config, loss=teacher, train={"steps": 3}, run_dir=own_config.run_dir.parent / "tokens")
    fit(tokens)
    assert "learns less" not in caplog.text


def test_missing_features_are_named(own_config):
    with pytest.raises(ValueError, match="loss.distillation.layer is 9, but llm.layers has only"):
        needed_features(changed(own_config, loss={"distillation": {"form": "teacher", "layer": 9, "teacher_steps": 1}}))
    Store.open(own_config.store.path, writable=True).drop_feature("text.shapes.simple")
    with pytest.raises(ValueError, match=r"no feature text\.shapes\.simple"):
        build_training(Store.open(own_config.store.path), own_config)


def test_an_interrupted_extraction_is_not_trained_on(own_config):
    store = Store.open(own_config.store.path, writable=True)
    store.discard("text.shapes.complex", 0)
    with pytest.raises(IncompleteFeature, match="text.shapes.complex"):
        fit(own_config)


def test_settings_other_than_those_of_the_stored_features_are_refused(own_config):
    with pytest.raises(ValueError, match="made with llm.max_tokens = 56, the config says 9"):
        fit(changed(own_config, llm={"max_tokens": 9}))
    with pytest.raises(ValueError, match="made with readout.seed = 0, the config says 3"):
        fit(changed(own_config, readout={"seed": 3}))


def test_a_resumed_run_must_have_the_same_denoiser(own_config, tmp_path):
    config = changed(own_config, loss={"denoising": {"weight": 1.0}}, train={"steps": 2})
    fit(config)
    shutil.copytree(locate(config.base_model).folder, tmp_path / "other")
    weights = tmp_path / "other" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: 2 * value for name, value in load_file(weights).items()}, weights)
    with pytest.raises(ValueError, match="trained on other weights of the denoiser"):
        fit(changed(config, base_model=str(tmp_path / "other")))


def test_too_few_rows_to_hold_some_back_are_trained_without_validation(own_config, caplog):
    fit(changed(own_config, train={"validation_fraction": 1e-9, "steps": 2, "validate_every": 1}))
    assert "training without validation" in caplog.text


def test_training_loads_no_llm_text_encoder_or_vae(own_config, monkeypatch):
    import diffusers
    import transformers

    def refuse(*_arguments, **_options):
        raise AssertionError("training loaded a model that it must not need")

    for library, names in (
        (transformers, ("AutoModel", "AutoModelForCausalLM", "AutoTokenizer", "CLIPTextModel", "CLIPTokenizer")),
        (diffusers, ("AutoencoderKL", "DiffusionPipeline", "StableDiffusionPipeline")),
    ):
        for name in names:
            monkeypatch.setattr(getattr(library, name), "from_pretrained", refuse)
    denoiser = {"alignment": {"form": "denoiser"}, "denoising": {"weight": 1.0}, "distillation": {"form": "none"}}
    fit(own_config)
    loads = []
    original = diffusers.UNet2DConditionModel.from_pretrained
    monkeypatch.setattr(
        diffusers.UNet2DConditionModel, "from_pretrained", lambda *a, **k: loads.append(a) or original(*a, **k)
    )
    fit(changed(own_config, run_dir=own_config.run_dir / "attention", train={"steps": 3}))
    assert loads == []
    fit(changed(own_config, run_dir=own_config.run_dir / "denoiser", loss=denoiser, train={"steps": 2}))
    assert len(loads) == 1


def test_training_in_bfloat16_stays_near_float32(own_config):
    def first(precision: str) -> dict[str, float]:
        config = changed(own_config, train={"mixed_precision": precision, "steps": 3})
        batches = row_batches(
            open_loader(Store.open(config.store.path), config, "train").forever(), needed_features(config), 0
        )
        return losses(config, batches)[0]

    exact, half = first("no"), first("bf16")
    assert exact.keys() == half.keys()
    for name, value in exact.items():
        assert half[name] == pytest.approx(value, rel=0.05), name


def grown(config: RunConfig) -> None:
    """Take two rows out of the store's data set and add an edited one, its features with it."""
    store = Store.open(config.store.path, writable=True)
    rows = store.rows()
    edited = replace(rows[0], simple="someone has drawn a red circle", slot=-1)
    edited = replace(edited, id=row_id(edited.simple, edited.complex, None), image="")
    store.add_rows([edited])
    for name in store.features():
        first = {array: values[:1] for array, values in store.read(name, np.array([0])).items()}
        for partition in store.pending(name):
            store.write_partition(name, partition, first)
    store.set_members(config.data.slug, [row.id for row in rows[2:]] + [edited.id])


def test_an_old_training_is_repeated_from_its_manifest_after_rows_changed(own_config):
    whole = load_file(fit(own_config) / "adapter.safetensors")
    grown(own_config)
    again = changed(own_config, run_dir=own_config.run_dir / "again")
    assert any(not torch.equal(whole[n], v) for n, v in load_file(fit(again) / "adapter.safetensors").items())
    manifest = {"manifest": own_config.run_dir / "manifest.safetensors"}
    repeated = fit(changed(own_config, run_dir=own_config.run_dir / "repeated", train=manifest))
    assert all(torch.equal(whole[name], value) for name, value in load_file(repeated / "adapter.safetensors").items())


def test_a_stopped_training_goes_on_with_its_own_rows_though_the_data_set_changed(own_config):
    whole = load_file(fit(own_config) / "adapter.safetensors")
    stopped = changed(own_config, run_dir=own_config.run_dir / "stopped")

    def stop(step) -> None:
        if step.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(stopped, stop)
    grown(own_config)
    resumed = load_file(fit(stopped) / "adapter.safetensors")
    assert all(torch.equal(whole[name], value) for name, value in resumed.items())


def test_packed_features_hold_the_same_numbers_and_are_trained_on(own_config):
    packed = {"codec": "blosc-shuffle"}
    config = changed(own_config, llm=packed, text=packed, vae=packed, store={"path": own_config.run_dir / "s.zarr"})
    extract(config)
    raw, other = Store.open(own_config.store.path), Store.open(config.store.path)
    assert set(raw.features()) == set(other.features())
    for name in raw.features():
        for array, values in raw.read(name).items():
            assert np.array_equal(values, other.read(name)[array])
    fit(config)
    with pytest.raises(IdentityMismatch, match=r"arrays\.states\.codec"):
        extract(changed(config, text={"codec": "zstd"}))

"""The released variant against its formulas: forward, losses, gradients, optimiser steps; then a whole run with it."""
# pyright: reportAttributeAccessIssue=false

import os
import pickle
import signal
from pathlib import Path

import pytest
import released_reference as reference
import torch
from safetensors.torch import load_file
from tiny_models import save_pipeline
from typer.testing import CliRunner

from sur.adapter.adapter import Adapter
from sur.adapter.attach import detach
from sur.adapter.generate import generate, load_pipeline
from sur.adapter.losses.batch import RowBatch
from sur.adapter.released.adapter import ReleasedAdapter, ReleasedAdapterConfig
from sur.adapter.released.objective import ReleasedObjective, llm_vectors
from sur.adapter.released.pt_files import read_pt, write_pt
from sur.cache import Store
from sur.cli.app import app
from sur.config.adapter import AdapterConfig, with_released_losses
from sur.config.losses import LossConfig
from sur.config.run import RunConfig, load_config
from sur.config.training import TrainConfig
from sur.models.denoiser import FrozenDenoiser
from sur.support.errors import ConfigError
from sur.training.batches import needed_features
from sur.training.fit import fit
from sur.training.trainer import Training, step_seed

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DIM, LLM_DIM, TOKENS, ROWS = 32, 24, 7, 5
UNUSED = ("encoder_layer.", "attention.value_layer.")
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def made(dropout: float = 0.0, **options) -> ReleasedAdapter:
    """A float64 adapter that has left its zero start."""
    torch.manual_seed(0)
    adapter = ReleasedAdapter(ReleasedAdapterConfig(dim=DIM, dropout=dropout, **options))
    torch.nn.init.normal_(adapter.fc.weight, std=0.3)
    return adapter.double()


def weights_of(module: torch.nn.Module) -> reference.Weights:
    """Copies of a module's weights, each with a gradient of its own."""
    return {name: value.detach().clone().requires_grad_() for name, value in module.named_parameters()}


def random_batch(seed: int = 0, rows: int = ROWS) -> RowBatch:
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    return RowBatch(
        simple=draw(rows, TOKENS, DIM),
        length=torch.full((rows,), TOKENS),
        complex=draw(rows, TOKENS, DIM),
        llm=draw(rows, 6, LLM_DIM),
        llm_length=torch.arange(rows) % 6 + 1,
        latents=(draw(rows, 4, 8, 8), draw(rows, 4, 8, 8)),
    )


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory) -> FrozenDenoiser:
    pipe = save_pipeline(tmp_path_factory.mktemp("models") / "pipe")
    return FrozenDenoiser.from_pipeline(str(pipe)).double()


def objective_with(denoiser: FrozenDenoiser, denoising: float = 1.0) -> ReleasedObjective:
    """All three losses, at weights that let each count."""
    weights = {"alignment": 0.02, "distillation": 0.05, "denoising": denoising}
    given = {name: {"weight": weight} for name, weight in weights.items()}
    torch.manual_seed(1)
    loss = LossConfig.model_validate(with_released_losses(given))
    return ReleasedObjective(loss, DIM, (6, LLM_DIM), denoiser).double()


def reference_losses(weights, objective, batch, dropout) -> dict[str, torch.Tensor]:
    """The weighted losses from the formulas, drawing as our trainer does: dropout first, then noise."""
    states, hidden = reference.adapter(weights, batch.simple, 0.1, p=dropout)
    vectors = torch.stack([row[:n].mean(0) for row, n in zip(batch.llm, batch.llm_length, strict=True)])
    projection = {f"to.{name}": value for name, value in objective.projection.state_dict().items()}
    target = reference.linear(projection, "to", vectors)[:, None].expand_as(hidden)
    schedule, scaling = objective.denoiser.schedule, objective.denoiser.scaling_factor
    losses = {
        "alignment": objective.config.alignment.weight * reference.divergence(states, batch.complex),
        "distillation": objective.config.distillation.weight * reference.divergence(hidden, target),
    }
    if objective.config.denoising.weight:
        unet = objective.denoiser.model
        losses["denoising"] = reference.denoising(unet, schedule.betas, *batch.latents, scaling, states)
    return losses


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_states_losses_and_gradients_are_those_of_the_formulas(denoiser, dropout, rows):
    adapter, objective, batch = made(dropout).train(), objective_with(denoiser), random_batch(rows=rows)
    weights = weights_of(adapter)
    torch.manual_seed(7)
    ours = objective(batch, adapter(batch.simple), 0)
    torch.manual_seed(7)
    theirs = reference_losses(weights, objective, batch, dropout)
    assert list(ours) == list(theirs)
    for name, loss in theirs.items():
        tight = 1e-6 if name == "denoising" else 1e-12  # the denoising loss is taken in float32
        assert ours[name].item() == pytest.approx(loss.item(), rel=tight), name
    assert not ours["denoising"].requires_grad
    sum(ours.values()).backward()
    sum(theirs.values()).backward()
    for name, parameter in adapter.named_parameters():
        wanted = weights[name].grad
        assert (parameter.grad is None) == (wanted is None) == name.startswith(UNUSED), name
        if wanted is not None:
            torch.testing.assert_close(parameter.grad, wanted, **EXACT, msg=lambda text, name=name: f"{name}: {text}")
    assert objective.projection.weight.grad is None


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_twenty_steps_of_the_trainer_are_those_of_the_formulas(denoiser, dropout):
    adapter, objective = made(dropout), objective_with(denoiser, denoising=0.0 if dropout else 1.0)
    weights = weights_of(adapter)
    settings = TrainConfig(steps=20, batch_size=ROWS, learning_rate=1e-2, weight_decay=0.1, warmup_steps=0,
                           schedule="constant", max_grad_norm=0.5, device="cpu", seed=3)  # fmt: skip
    steps = list(Training(adapter, objective, settings).run(random_batch(i) for i in range(20)))
    optimiser = reference.AdamW(weights, 1e-2, 0.1, (0.9, 0.999), 0.5)
    for index in range(20):
        torch.manual_seed(step_seed(3, index))
        losses = reference_losses(weights, objective, random_batch(index), dropout)
        for name, loss in losses.items():
            assert steps[index].losses[name] == pytest.approx(loss.item(), rel=1e-6), (index, name)
        for value in weights.values():
            value.grad = None
        sum(losses.values()).backward()
        optimiser.step({name: value.grad for name, value in weights.items()})
    for name, parameter in adapter.named_parameters():
        torch.testing.assert_close(parameter, weights[name], rtol=1e-7, atol=1e-9)
    assert steps[-1].losses["alignment"] < steps[0].losses["alignment"]
    spare, used = adapter.encoder_layer.linear1.weight, adapter.transformer_encoder.layers[0].linear1.weight
    assert torch.equal(spare, made().encoder_layer.linear1.weight) and not torch.equal(spare, used)


def test_rows_of_a_batch_change_each_other_and_tokens_do_not_meet_in_the_encoder():
    adapter, x = made().eval(), random_batch().simple
    assert (adapter(x).states[:1] - adapter(x[:1]).states).abs().max() > 1e-3
    changed = x.clone()
    changed[:, 3] += 1
    moved = (adapter(changed).hidden - adapter(x).hidden).abs().amax((0, 2)) > 0
    assert moved.tolist() == [token == 3 for token in range(TOKENS)]


def test_a_single_row_trains_neither_query_nor_key_of_the_encoder():
    adapter = made()
    adapter(random_batch(rows=1).simple).states.square().sum().backward()
    gradient = adapter.transformer_encoder.layers[0].self_attn.in_proj_weight.grad  # pyright: ignore
    assert not gradient[: 2 * DIM].any() and gradient[2 * DIM :].all()


def test_it_starts_away_from_the_identity_and_the_dial_ends_there():
    torch.manual_seed(0)
    adapter = ReleasedAdapter(ReleasedAdapterConfig(dim=DIM)).eval()
    x = torch.randn(2, TOKENS, DIM)
    torch.testing.assert_close(adapter(x).states, 0.9 * x + 0.1 * adapter.fc.bias)
    assert adapter.fc.bias.any()
    assert torch.equal(adapter(x, 0.0).states, x)
    torch.testing.assert_close(adapter(x, 0.5).states, 0.95 * x + 0.05 * adapter.fc.bias)


def test_three_tenths_of_the_parameters_are_never_used():
    with torch.device("meta"):
        adapter = ReleasedAdapter(ReleasedAdapterConfig(dim=768))
    sizes = {name: p.numel() for name, p in adapter.named_parameters()}
    unused = sum(size for name, size in sizes.items() if name.startswith(UNUSED))
    assert sum(sizes.values()) == 20_085_504
    assert unused / sum(sizes.values()) == pytest.approx(0.304, abs=5e-4)


def test_a_saved_adapter_is_loaded_as_what_it_is(tmp_path):
    adapter = made(weight=0.3).float()
    adapter.weight = 0.5
    loaded = Adapter.from_pretrained(adapter.save_pretrained(tmp_path / "released"))
    assert type(loaded) is ReleasedAdapter and not loaded.training
    assert (loaded.config, loaded.weight) == (adapter.config, 0.5)
    x = random_batch().simple.float()
    assert torch.equal(loaded(x).states, adapter.eval()(x).states)
    ours = Adapter(AdapterConfig(dim=DIM)).save_pretrained(tmp_path / "corrected")
    assert type(ReleasedAdapter.from_pretrained(ours)) is Adapter


# .pt files


def invoke(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_a_pt_file_becomes_a_folder_and_the_same_file_again(tmp_path):
    adapter = made(layers=3).float()
    torch.save(adapter.state_dict(), tmp_path / "theirs.pt")
    shown = invoke(tmp_path / "theirs.pt", tmp_path / "adapter", "--weight", 0.1)
    assert shown.exit_code == 0, shown.output
    loaded = Adapter.from_pretrained(tmp_path / "adapter")
    x = random_batch().simple.float()
    assert torch.equal(loaded(x).states, adapter.eval()(x).states)
    assert loaded.trained_on["converted_from"] == "theirs.pt"
    shown = invoke(tmp_path / "adapter", tmp_path / "again.pt")
    assert "adapter_weight = 0.1" in shown.output
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert list(again) == list(adapter.state_dict())
    assert all(torch.equal(again[name], value) for name, value in adapter.state_dict().items())


def test_a_weight_is_never_guessed(tmp_path):
    path = tmp_path / "llmw1e-05_promptw1e-05_adapterw0.1" / "adapter.pt"
    write_pt(made().float(), path)
    refused = invoke(path, tmp_path / "adapter")
    assert isinstance(refused.exception, ConfigError) and "give --weight" in str(refused.exception)
    assert not (tmp_path / "adapter").exists()


class Payload:
    """Runs when unpickled."""

    def __reduce__(self):
        return (os.mkdir, (os.environ["PAYLOAD"],))


def test_a_file_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "ran"))
    torch.save({**made().state_dict(), "more": Payload()}, tmp_path / "bad.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload(), protocol=2))
    for name in ("bad.pt", "plain.pt"):
        with pytest.raises(ConfigError, match="more than tensors"):
            read_pt(tmp_path / name, 0.1)
    assert not (tmp_path / "ran").exists()
    pickle.loads((tmp_path / "plain.pt").read_bytes())
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("attention.key_layer.bias"), "attention.key_layer.bias is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra is unknown"),
        (lambda s: s.update({"fc.bias": torch.zeros(5)}), r"fc.bias has shape \(5,\), expected \(32,\)"),
        (lambda s: s.pop("fc.weight"), "has no matrix fc.weight"),
        (lambda s: s.update({"transformer_encoder.layers.9.norm1.bias": torch.zeros(DIM)}), "and 9 more"),
        (lambda s: s.update(step=3), "holds no state dict of tensors"),
    ],
)
def test_a_file_of_something_else_is_refused_with_what_is_wrong(tmp_path, change, message):
    state = made().state_dict()
    change(state)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=message):
        read_pt(tmp_path / "other.pt", 0.1)


def test_conversions_that_make_no_sense_are_refused(tmp_path):
    corrected = Adapter(AdapterConfig(dim=DIM)).save_pretrained(tmp_path / "corrected")
    for arguments, message in [
        ((corrected, tmp_path / "x.pt"), "holds a corrected adapter"),
        ((corrected, tmp_path / "x"), "one of the two must be a .pt file"),
        ((tmp_path / "none.pt", corrected, "--weight", 1), "exists; remove it"),
        ((tmp_path / "none.pt", tmp_path / "x", "--weight", 1), "no file"),
        ((corrected, tmp_path / "x.pt", "--weight", 1), "leave --weight out"),
    ]:
        assert message in str(invoke(*arguments).exception)


# Configuration


def test_the_switch_fills_in_what_the_authors_set():
    config = load_config("configs/shapes.yaml", ["variant=released", "loss={}", "adapter={}"])
    assert config.adapter == ReleasedAdapterConfig(layers=2, weight=0.1, dropout=0.1)
    loss = config.loss
    assert (loss.alignment.form, loss.alignment.measure, loss.alignment.weight) == ("tokens", "kl", 1e-5)
    assert (loss.distillation.projection, loss.distillation.weight, loss.denoising.weight) == ("frozen", 1e-5, 1.0)
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["variant=released"], "variant released has no setting heads"),
        (["variant=released", "adapter={}"], "loss.alignment.form must be tokens, got attention"),
        (["variant=released", "adapter={}"], "loss.distillation.form must be pooled, got teacher"),
        (["variant=released", "adapter={}", "loss.alignment=3"], "loss.alignment"),
        (["adapter={weight: 0.1}"], "variant corrected has no setting weight"),
        (["variant=relesed"], "'corrected' or 'released'"),
    ],
)
def test_settings_of_the_other_variant_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config("configs/shapes.yaml", overrides)


# A whole run


@pytest.fixture
def released_config(own_config) -> RunConfig:
    """A dozen steps with everything on; the cached LLM feature holds token states."""
    values = own_config.model_dump()
    values |= {"variant": "released", "adapter": {}, "loss": {"alignment": {"weight": 0.01}}}
    values["train"] |= {"optimiser": "adamw", "learning_rate": 1e-3}
    return RunConfig.model_validate(values)


def test_a_run_stopped_in_the_middle_ends_as_an_uninterrupted_one(released_config):
    seen = []
    whole = load_file(fit(released_config, seen.append) / "adapter.safetensors")
    assert set(seen[0].losses) == {"alignment", "distillation", "denoising"}
    assert seen[-1].losses["distillation"] < seen[0].losses["distillation"]
    config = released_config.model_copy(update={"run_dir": released_config.run_dir.parent / "interrupted"})

    def stop(step) -> None:
        if step.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped at step 7"):
        fit(config, stop)
    resumed = load_file(fit(config) / "adapter.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], value) for name, value in resumed.items())


def test_the_denoising_loss_changes_no_weight(released_config):
    whole = load_file(fit(released_config) / "adapter.safetensors")
    denoising = released_config.loss.denoising.model_copy(update={"weight": 0.0})
    loss = released_config.loss.model_copy(update={"denoising": denoising})
    run_dir = released_config.run_dir.parent / "without"
    without = fit(released_config.model_copy(update={"loss": loss, "run_dir": run_dir}))
    assert all(torch.equal(whole[name], value) for name, value in load_file(without / "adapter.safetensors").items())


def test_only_rows_with_prompts_and_picture_are_read(released_config, own_config):
    assert needed_features(released_config).optional == []
    assert needed_features(released_config).complex in needed_features(released_config).required
    assert needed_features(own_config).complex in needed_features(own_config).optional


def test_a_checkpoint_of_the_other_variant_is_refused(released_config, own_config):
    fit(own_config)
    with pytest.raises(ConfigError, match="trained with variant = corrected, the config says released"):
        fit(released_config)


def test_pooled_vectors_are_taken_as_they_are_and_token_states_averaged(released_config):
    batch = random_batch()
    vectors = RowBatch(simple=batch.simple, length=batch.length, llm=batch.llm[:, 0], llm_length=batch.llm_length)
    assert torch.equal(llm_vectors(vectors), batch.llm[:, 0])
    torch.testing.assert_close(llm_vectors(batch)[2], batch.llm[2, :3].mean(0))
    name = needed_features(released_config).llm
    assert name is not None and len(Store.open(released_config.store.path).spec(name).arrays["states"].shape) == 2


# Inference


@pytest.fixture
def pipe(tmp_path):
    return load_pipeline(save_pipeline(tmp_path / "pipe"))


def test_it_is_attached_like_any_adapter_with_dropout_off(pipe):
    adapter = made(dropout=0.5).float()
    plain = pipe.encode_prompt(["a cat", "two"], "cpu", 1, True)
    adapter.attach(pipe)
    once, again = (pipe.encode_prompt(["a cat", "two"], "cpu", 1, True) for _ in range(2))
    adapter.detach(pipe)
    assert torch.equal(once[0], again[0]) and not torch.allclose(once[0], plain[0])
    assert torch.equal(once[1], plain[1])
    with torch.no_grad():
        assert torch.equal(once[0], adapter(plain[0]).states)
    assert len(generate(pipe, ["a cat"], [0], adapter, steps=1)) == 1


def test_attached_as_released_the_negative_prompt_and_dropout_take_part(pipe, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from released import attach_as_released

    adapter = made(dropout=0.5).float()
    plain = pipe.encode_prompt(["a cat"], "cpu", 1, True)
    attach_as_released(adapter, pipe)
    torch.manual_seed(0)
    positive, negative = pipe.encode_prompt(["a cat"], "cpu", 1, True)[:2]
    torch.manual_seed(0)
    with torch.no_grad():
        both = adapter(torch.cat([plain[1], plain[0]])).states
    assert torch.equal(torch.cat([negative, positive]), both)
    assert not torch.allclose(pipe.encode_prompt(["a cat"], "cpu", 1, True)[0], positive)
    assert pipe.encode_prompt(["a cat"], "cpu", 1, False)[1] is None
    detach(pipe)
    assert torch.equal(pipe.encode_prompt(["a cat"], "cpu", 1, True)[0], plain[0])

"""The trainer: parts of a step, draws of a row, the moving average, checkpoints that are kept."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from tiny_trainer import batches, training

from sur.config.run_folder import RunFolder
from sur.config.training import TrainConfig
from sur.models.denoiser import row_draws
from sur.training.checkpoint import clear_leftovers, load_checkpoint, prune_checkpoints, save_checkpoint
from sur.training.trainer import Training, part_seed, split_rows, step_seed


def learnt(trained: Training) -> dict[str, torch.Tensor]:
    """Copies of all that is learnt but biases of keys, which have no gradient but rounding."""
    found = {n: v.clone() for n, v in trained.adapter.state_dict().items() if not n.endswith("in_proj_bias")}
    return found | {n: v.clone() for n, v in trained.objective.learned().items()}


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulated_parts_give_the_weights_of_one_big_batch(parts):
    whole, split = training(), training(accumulate=parts)
    for one, other in zip(whole.run(batches()), split.run(batches()), strict=True):
        assert other.losses == pytest.approx(one.losses, rel=1e-5)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
    before, one, other = learnt(training()), learnt(whole), learnt(split)
    for name, value in one.items():
        assert torch.allclose(value, other[name], atol=2e-6), name
    assert max((one[name] - before[name]).abs().max().item() for name in one) > 1e-3


def test_what_a_launcher_says_of_accumulation_changes_nothing(monkeypatch):
    (plain,) = training(steps=1).run(batches())
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    (told,) = training(steps=1).run(batches())
    assert told.grad_norm == plain.grad_norm


def test_clipping_bounds_the_gradient_of_all_parts_together():
    tight = training(accumulate=2, max_grad_norm=1e-3, steps=1)
    (step,) = tight.run(batches())
    assert step.grad_norm > 1e-2
    clipped = torch.nn.utils.get_total_norm([p.grad for p in tight.parameters if p.grad is not None])
    assert clipped.item() == pytest.approx(1e-3, rel=1e-3)


def test_a_step_whose_loss_is_not_finite_changes_nothing():
    broken = training()
    before = learnt(broken)

    def poisoned():
        batch = next(batches())
        batch.complex[-1] = torch.inf
        yield batch

    with pytest.raises(FloatingPointError, match=r"step 0: .*lower train.learning_rate"):
        next(broken.run(poisoned()))
    assert all(torch.equal(value, before[name]) for name, value in learnt(broken).items())


def test_parts_are_the_rows_in_their_order():
    batch = next(batches())
    parts = list(split_rows(batch, 3))
    assert [len(part.simple) for part in parts] == [4, 4, 4]
    for name in ("simple", "length", "complex", "llm"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))


def test_every_part_of_every_step_has_a_seed_of_its_own_and_the_first_the_step_s():
    assert part_seed(3, 7, 0) == step_seed(3, 7)
    seeds = {part_seed(seed, step, place) % 2**32 for seed in (0, 1) for step in range(50) for place in range(8)}
    assert len(seeds) == 2 * 50 * 8


def test_a_row_s_noise_depends_on_its_seed_alone():
    seeds = torch.tensor([5, 6, 7, 8])
    whole, half = row_draws(seeds, (2, 3, 3), 1000), row_draws(seeds[2:], (2, 3, 3), 1000)
    for one, other in zip(whole, half, strict=True):
        assert torch.equal(one[2:], other)
    spread, noise, _, timesteps = row_draws(torch.arange(400), (2, 3, 3), 1000)
    assert len(timesteps.unique()) > 300 and timesteps.min() >= 0 and timesteps.max() < 1000
    for normal in (spread, noise):
        assert abs(normal.mean()) < 0.05 and abs(normal.std() - 1) < 0.05
    assert abs((spread * noise).mean()) < 0.05


def test_the_moving_average_follows_its_formula_and_is_what_is_published_and_validated():
    trained = training(ema_decay=0.5)
    assert trained.average is not None
    expected = None
    for n, _ in enumerate(trained.run(batches())):
        now = {name: value.clone() for name, value in trained.adapter.state_dict().items()}
        decay = min(0.5, (1 + n) / (10 + n))
        expected = now if n == 0 else {k: decay * expected[k] + (1 - decay) * v for k, v in now.items()}
    published = trained.published.state_dict()
    assert all(torch.allclose(published[name], value, atol=1e-6) for name, value in expected.items())
    assert any(not torch.equal(published[name], value) for name, value in trained.adapter.state_dict().items())
    plain = training()
    plain.adapter.load_state_dict(published)
    plain.objective.load_learned(trained.objective.learned())
    held_back = [next(batches(seed=9))]
    assert trained.validate(held_back) == plain.validate(held_back)


def test_a_checkpoint_has_the_average_as_its_adapter_and_brings_everything_back(tmp_path):
    trained = training(ema_decay=0.9)
    source = batches()
    run = trained.run(source)
    for _ in range(3):
        next(run)
    path = save_checkpoint(RunFolder(tmp_path), trained, {})
    published = load_file(path / "adapter" / "adapter.safetensors")
    assert all(torch.equal(value, published[name]) for name, value in trained.published.state_dict().items())
    rest = [next(source) for _ in range(5)]
    list(trained.run(copy.deepcopy(rest)))
    resumed = training(ema_decay=0.9)
    load_checkpoint(path, resumed)
    list(resumed.run(rest))
    for one, other in ((trained.adapter, resumed.adapter), (trained.published, resumed.published)):
        assert all(torch.equal(v, other.state_dict()[n]) for n, v in one.state_dict().items())


def test_old_checkpoints_go_but_the_newest_and_the_best(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (2, 4, 6, 8, 10):
        folder.checkpoint(step).mkdir(parents=True)
    (folder.checkpoints / ".step-000001.removed").mkdir()  # a removal that was cut short
    prune_checkpoints(folder, keep=2, best=4)
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-000004", "step-000008", "step-000010"]
    prune_checkpoints(folder, keep=1)
    assert [path.name for path in folder.checkpoints.iterdir()] == ["step-000010"]


def test_what_a_killed_training_left_half_done_goes_and_is_in_nobody_s_way(tmp_path):
    folder = RunFolder(tmp_path)
    for name in ("checkpoints/step-000002", "checkpoints/step-000004", "checkpoints/.step-000002.removed/adapter",
                 "checkpoints/.step-000007.partial/adapter", "samples", "adapter"):  # fmt: skip
        (tmp_path / name).mkdir(parents=True)
    for name in ("samples/.step-000002.png.7.partial", "adapter/.config.json.7.partial", ".curves.jsonl.7.partial",
                 ".config.yaml.7.partial", "adapter/config.json", "checkpoints/.step-000002.removed/file"):  # fmt: skip
        (tmp_path / name).touch()
    prune_checkpoints(folder, keep=1)
    assert sorted(p.name for p in folder.checkpoints.iterdir()) == [".step-000007.partial", "step-000004"]
    clear_leftovers(folder)
    assert [p.name for p in folder.checkpoints.iterdir()] == ["step-000004"]
    left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert left == [".config.yaml.7.partial", "adapter/config.json"]  # another command may be writing the first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 2, "validate_every": 0}, "patience counts validations, and there are none"),
        ({"patience": 2, "validation_fraction": 0}, "patience counts validations, and there are none"),
        ({"sample_every": 2}, "name some sample_prompts"),
    ],
)
def test_options_that_lack_what_they_need_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)

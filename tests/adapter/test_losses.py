"""Losses against naive references written from their formulas."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sur.adapter.adapter import Adapter
from sur.adapter.losses import Objective, Teacher, attention_alignment
from sur.adapter.losses.batch import RowBatch
from sur.adapter.losses.distillation import interpolate_tokens
from sur.adapter.losses.measures import mean_distance
from sur.config.adapter import AdapterConfig
from sur.config.losses import DistillationConfig, LossConfig
from sur.models.readout import ReadOut

HEADS = [4, 2]


@pytest.fixture
def read_out() -> ReadOut:
    torch.manual_seed(1)
    return ReadOut(*([torch.randn(n, m) for _ in HEADS] for n, m in ((50, 16), (16, 32), (16, 32))), heads=HEADS)


def batch(paired=(True, True, True, False), llm_shape=(12, 24)) -> RowBatch:
    torch.manual_seed(2)
    return RowBatch(
        simple=torch.randn(4, 9, 32),
        length=torch.tensor([5, 6, 7, 9]),
        complex=torch.randn(4, 9, 32),
        paired=torch.tensor(paired),
        llm=torch.randn(4, *llm_shape),
        llm_length=torch.tensor([3, 4, 12, 1]),
    )


def test_read_out_is_multi_head_cross_attention_of_the_named_formula(read_out):
    states = torch.randn(3, 9, 32)
    picks = read_out.pick(5)
    for i, (heads, got) in enumerate(zip(HEADS, read_out(states, picks), strict=True)):
        q, k, v = (getattr(read_out, f"{name}{i}") for name in "qkv")
        size = 16 // heads
        for row in range(3):
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                keys, values = states[row] @ k[part].T, states[row] @ v[part].T
                scores = q[picks[i]][:, part] @ keys.T / math.sqrt(size)
                torch.testing.assert_close(got[row, head], scores.softmax(-1) @ values, rtol=1e-4, atol=1e-4)


def test_read_out_ignores_order_and_duplication_of_tokens(read_out):
    states = torch.randn(2, 9, 32)
    shuffled = states[:, torch.randperm(9)]
    doubled = torch.cat([states, states], 1)
    for other in (shuffled, doubled):
        assert float(attention_alignment(read_out, other, states, 20)) < 1e-9


def test_attention_alignment_of_independent_states_is_about_two_variances(read_out):
    loss = attention_alignment(read_out, torch.randn(64, 9, 32), torch.randn(64, 9, 32), 50)
    assert 0.5 < float(loss) < 2.5


def test_without_a_start_mark_the_first_token_is_the_prompts_first():
    target = torch.arange(5.0)[None, :, None]
    got = interpolate_tokens(target, torch.tensor([5]), torch.tensor([4]), 6, start_marks=0)
    assert got.flatten().tolist() == [0, 2, 4, 4, 4, 4]  # three tokens, their end mark, padding


def test_prompts_that_a_model_may_have_cut_are_left_out_of_the_tokens_form(read_out):
    """Row 3 fills the text encoder's nine tokens, row 2 the LLM's twelve: nothing tells where their ends would be."""
    config = LossConfig.model_validate({"distillation": {"form": "tokens", "measure": "mse"}})
    objective = Objective(config, 32, (12, 24), read_out, text_limit=9)
    rows, adapter = batch(), Adapter(AdapterConfig(dim=32))
    output = adapter(rows.simple)
    whole = torch.tensor([True, True, False, False])
    kept = RowBatch(**{name: part[whole] for name, part in vars(rows).items() if isinstance(part, torch.Tensor)})
    wanted = Objective(config, 32, (24,), read_out)  # as of a feature whose limit is not known
    wanted.load_learned(objective.learned())
    loss = objective(rows, output, 0)["distillation"]
    torch.testing.assert_close(loss, wanted(kept, type(output)(*(part[whole] for part in output)), 0)["distillation"])
    assert abs(loss.item() - wanted(rows, output, 0)["distillation"].item()) > 1e-3


def test_a_batch_of_cut_prompts_alone_teaches_nothing(read_out):
    config = LossConfig.model_validate({"distillation": {"form": "tokens"}})
    objective = Objective(config, 32, (12, 24), read_out, text_limit=9)
    rows = replace(batch(), length=torch.full((4,), 9))
    loss = objective(rows, Adapter(AdapterConfig(dim=32))(rows.simple), 0)["distillation"]
    assert float(loss.detach()) == 0
    loss.backward()


@pytest.mark.parametrize("measure", ["kl", "mse", "cosine", "contrastive"])
def test_a_measure_is_smallest_at_the_target_and_has_a_gradient_elsewhere(measure):
    torch.manual_seed(0)
    target = torch.randn(6, 16)
    predicted = torch.randn(6, 16, requires_grad=True)
    away = mean_distance(measure, predicted, target, 0.5)
    away.backward()
    assert predicted.grad is not None
    assert predicted.grad.abs().max() > 0
    assert float(mean_distance(measure, target, target, 0.5)) < away.item()


def test_kl_is_the_mean_over_positions_of_the_naive_sum():
    predicted, target, temperature = torch.randn(5, 8), torch.randn(5, 8), 2.0
    p, q = (target / temperature).softmax(-1), (predicted / temperature).softmax(-1)
    naive = sum(float((p[i] * (p[i] / q[i]).log()).sum()) for i in range(5)) / 5 * temperature**2
    assert float(mean_distance("kl", predicted, target, temperature)) == pytest.approx(naive, rel=1e-5)


def test_measures_refuse_unequal_shapes_and_unknown_names():
    with pytest.raises(ValueError, match="one shape"):
        mean_distance("mse", torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="unknown measure 'l7'"):
        mean_distance("l7", torch.zeros(2, 3), torch.zeros(2, 3))  # type: ignore[arg-type]


def test_interpolation_meets_the_ends_and_is_linear_between():
    target = torch.arange(4.0)[None, :, None].expand(2, 4, 1)
    got = interpolate_tokens(target, torch.tensor([4, 2]), torch.tensor([9, 5]), 9)[..., 0]
    torch.testing.assert_close(got[0, 1:8], torch.linspace(0, 3, 7))
    torch.testing.assert_close(got[1, 1:4], torch.tensor([0.0, 0.5, 1.0]))


@pytest.mark.parametrize(
    ("form", "stored"), [("pooled", "tokens"), ("tokens", "tokens"), ("teacher", "tokens"), ("teacher", "mean")]
)
def test_distillation_learns_and_uses_every_parameter(form, stored, read_out):
    torch.manual_seed(0)
    config = LossConfig.model_validate(
        {"distillation": {"form": form, "teacher_steps": 60, "teacher_width": 32, "teacher_dropout": 0.0}}
    )
    rows = batch() if stored == "tokens" else replace(batch(), llm=batch().llm.mean(1))
    adapter, objective = Adapter(AdapterConfig(dim=32)), Objective(config, 32, rows.llm.shape[1:], read_out)
    parameters = [*adapter.named_parameters(), *objective.named_parameters()]
    optimiser = torch.optim.AdamW([p for _, p in parameters], lr=3e-3)
    totals = []
    for step in range(60):
        torch.manual_seed(step)
        losses = objective(rows, adapter(rows.simple), step)
        total = torch.stack(list(losses.values())).sum()
        optimiser.zero_grad()
        total.backward()
        if step == 1:
            assert [n for n, p in parameters if p.grad is None or not p.grad.any()] == []
        optimiser.step()
        totals.append(total.item())
    assert totals[-1] < 0.7 * totals[0]


def test_the_teacher_learns_first_and_then_teaches(read_out):
    config = LossConfig.model_validate({"distillation": {"form": "teacher", "teacher_steps": 5}})
    adapter, objective = Adapter(AdapterConfig(dim=32)), Objective(config, 32, (12, 24), read_out)
    names = [set(objective(batch(), adapter(batch().simple), step)) for step in (4, 5)]
    assert names == [{"alignment", "teacher"}, {"alignment", "distillation"}]
    objective(batch(), adapter(batch().simple), 5)["distillation"].backward()
    assert all(p.grad is None for p in objective.parameters())
    assert adapter.output.weight.grad is not None and adapter.output.weight.grad.any()


def test_further_targets_add_their_own_projections_loss_times_their_factor(read_out):
    form = {"form": "pooled", "measure": "mse"}
    config = LossConfig.model_validate({"distillation": form | {"also": {"llm.b.l02.mean": 0.5}, "weight": 2.0}})
    objective = Objective(config, 32, (24,), read_out, also_shapes=[(7,)])
    rows = replace(batch(llm_shape=(24,)), also=(torch.randn(4, 7),), also_length=(torch.ones(4).long(),))
    output = Adapter(AdapterConfig(dim=32))(rows.simple)
    pooled = torch.stack([output.hidden[i, : rows.length[i]].mean(0) for i in range(4)])
    first, second = objective.projection.linear, objective.also[0].linear
    wanted = 2.0 * (F.mse_loss(first(pooled), rows.llm) + 0.5 * F.mse_loss(second(pooled), rows.also[0]))
    torch.testing.assert_close(objective(rows, output, 0)["distillation"], wanted)
    again = Objective(config, 32, (24,), read_out, also_shapes=[(7,)])
    again.load_learned(objective.learned())
    torch.testing.assert_close(again.also[0].linear.weight, second.weight)  # pyright: ignore


def test_further_targets_need_a_form_that_has_targets():
    with pytest.raises(ValueError, match="forms pooled and tokens, not teacher"):
        LossConfig.model_validate({"distillation": {"form": "teacher", "also": {"x": 1}}})


def test_older_files_may_name_caption_dropout_while_it_is_off():
    plain = LossConfig.model_validate({"denoising": {"weight": 0.5}})
    assert LossConfig.model_validate({"denoising": {"weight": 0.5, "caption_dropout": 0.0}}) == plain
    with pytest.raises(ValueError, match="caption_dropout is gone: .* leave it out"):
        LossConfig.model_validate({"denoising": {"weight": 0.5, "caption_dropout": 0.1}})


def test_masked_tokens_do_not_count():
    config = LossConfig.model_validate({"alignment": {"form": "tokens"}})
    mask, complex_mask = (torch.arange(9) < n for n in (torch.tensor([[4], [9], [2], [7]]), torch.tensor([[6]] * 4)))
    rows = replace(batch((True,) * 4), mask=mask, complex_mask=complex_mask)
    adapter = Adapter(AdapterConfig(dim=32))
    torch.nn.init.normal_(adapter.output.weight, std=0.2)
    output = adapter(rows.simple, mask=mask)
    real = [(i, j) for i in range(4) for j in range(9) if mask[i, j] and complex_mask[i, j]]
    wanted = torch.stack([(output.states[i, j] - rows.complex[i, j]).square().mean() for i, j in real]).mean()
    torch.testing.assert_close(Objective(config, 32)(rows, output, 0)["alignment"], wanted)
    dirty = rows.simple.clone()
    dirty[~mask] = 99.0
    states = adapter(dirty, mask=mask).states
    torch.testing.assert_close(states[mask], output.states[mask])


def test_a_frozen_projection_gets_no_gradient_but_is_saved(read_out):
    config = LossConfig.model_validate({"distillation": {"form": "pooled", "projection": "frozen"}})
    objective = Objective(config, 32, (24,), read_out)
    assert not any(p.requires_grad for p in objective.parameters())
    assert set(objective.learned()) == {"projection.linear.weight", "projection.linear.bias"}


def test_a_teacher_reads_a_pooled_vector_standardised_as_one_token():
    torch.manual_seed(0)
    config = DistillationConfig(form="teacher", teacher_width=32)
    vectors = torch.randn(40, 24) * torch.logspace(-3, 3, 24) + torch.linspace(-50, 1e4, 24)
    vectors[:, 5] = 7.0
    pooled, tokens = (Teacher(32, 24, config, count).eval() for count in (None, 1))
    pooled.standardise(vectors)
    one = torch.ones(40, dtype=torch.int64)
    standard = (vectors - vectors.mean(0)) / vectors.std(0).clamp_min(1e-9)
    tokens.load_state_dict({k: v for k, v in pooled.state_dict().items() if k not in ("mean", "factor")})
    torch.testing.assert_close(pooled(vectors, one), tokens(standard[:, None], one), rtol=1e-4, atol=1e-4)
    others = vectors + torch.eye(24)[5] * 1e-3  # a dimension that never varied in the sample tells nothing
    torch.testing.assert_close(pooled(vectors, one), pooled(others, one))


def test_padding_of_the_llm_states_does_not_change_the_distillation(read_out):
    for form in ("pooled", "tokens", "teacher"):
        config = LossConfig.model_validate({"distillation": {"form": form, "teacher_steps": 0}})
        torch.manual_seed(0)
        objective = Objective(config, 32, (12, 24), read_out).eval()
        clean, dirty = batch(), batch()
        for row, length in enumerate(dirty.llm_length):
            dirty.llm[row, length:] = 99.0
        output = Adapter(AdapterConfig(dim=32))(clean.simple)
        results = []
        for each in (clean, dirty):
            torch.manual_seed(3)
            results.append(objective(each, output, 0))
        for name in results[0]:
            torch.testing.assert_close(results[0][name], results[1][name], rtol=1e-4, atol=1e-5)


def test_unpaired_rows_do_not_enter_the_alignment(read_out):
    config = LossConfig()
    objective = Objective(config, 32, None, read_out)
    one, other = batch(), batch()
    other.complex[3] += 100
    output = Adapter(AdapterConfig(dim=32))(one.simple)
    values = []
    for each in (one, other):
        torch.manual_seed(0)
        values.append(objective(each, output, 0)["alignment"].item())
    assert values[0] == values[1]


def test_objective_names_what_it_lacks():
    with pytest.raises(ValueError, match="read-out"):
        Objective(LossConfig(), 32)
    with pytest.raises(ValueError, match="LLM features"):
        Objective(
            LossConfig.model_validate({"distillation": {"form": "teacher"}}),
            32,
            None,
            ReadOut([torch.zeros(1, 4)], [torch.zeros(4, 32)], [torch.zeros(4, 32)], heads=[1]),
        )


def test_token_alignment_is_the_state_by_state_distance():
    config = LossConfig.model_validate({"alignment": {"form": "tokens", "measure": "mse"}})
    objective, rows = Objective(config, 32), batch()
    output = Adapter(AdapterConfig(dim=32))(rows.simple)
    expected = F.mse_loss(rows.simple[:3], rows.complex[:3])
    torch.testing.assert_close(objective(rows, output, 0)["alignment"], expected)


def test_every_loss_off_is_refused():
    with pytest.raises(ValueError, match="every loss is off"):
        LossConfig.model_validate({"alignment": {"form": "none"}})
    with pytest.raises(ValueError, match="no loss is on before"):
        LossConfig.model_validate({"alignment": {"form": "none"}, "denoising": {"weight": 1, "first_step": 5}})


def test_a_teacher_without_unpaired_rows_gives_a_loss_of_zero(read_out):
    config = LossConfig.model_validate({"distillation": {"form": "teacher", "teacher_steps": 0}})
    adapter, objective = Adapter(AdapterConfig(dim=32)), Objective(config, 32, (12, 24), read_out)
    rows = batch(paired=(True,) * 4)
    assert objective(rows, adapter(rows.simple), 0)["distillation"].item() == 0


def test_small_differences_are_seen_in_half_precision(read_out):
    states = torch.randn(1, 5, read_out.k0.shape[1]).repeat(6, 1, 1)
    target = states + 0.02 * torch.randn_like(states)
    torch.manual_seed(0)
    exact = attention_alignment(read_out, states, target, 8)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        half = attention_alignment(read_out, states, target, 8)
    assert half.dtype == torch.float32
    assert half == pytest.approx(float(exact), rel=0.2)

"""The adapter: identity at the start, rows independent of each other, every parameter used, saved and loaded."""

import json

import pytest
import torch

from sur.adapter.adapter import Adapter
from sur.config.adapter import AdapterConfig


def made(dim: int = 32, **options) -> Adapter:
    """An adapter that has left its zero start."""
    torch.manual_seed(0)
    adapter = Adapter(AdapterConfig(dim=dim, **options))
    torch.nn.init.normal_(adapter.output.weight, std=0.1)
    torch.nn.init.normal_(adapter.hidden_output.weight, std=0.1)
    return adapter.eval()


def test_untrained_adapter_is_exactly_the_identity():
    x = torch.randn(3, 7, 32)
    assert torch.equal(Adapter(AdapterConfig(dim=32))(x).states, x)


def test_whitening_keeps_the_identity_and_gives_the_encoder_inputs_of_equal_variance():
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(32, 32)).Q
    states = torch.randn(4000, 32) * torch.linspace(0.5, 4, 32) @ rotation + 3
    adapter = Adapter(AdapterConfig(dim=32))
    adapter.whiten(states)
    whitened = adapter.normalise[0](states)
    torch.testing.assert_close(torch.cov(whitened.T), torch.eye(32), rtol=0, atol=0.02)
    torch.testing.assert_close(whitened.mean(0), torch.zeros(32), rtol=0, atol=1e-3)
    x = states.reshape(-1, 8, 32)
    assert torch.equal(adapter(x).states, x)


def test_weight_zero_is_exactly_the_identity():
    adapter = made()
    adapter.weight = 0.0
    x = torch.randn(3, 7, 32)
    assert torch.equal(adapter(x).states, x)


def test_a_row_does_not_depend_on_the_rest_of_the_batch():
    adapter, x = made(), torch.randn(5, 7, 32)
    alone = torch.cat([adapter(row[None]).states for row in x])
    torch.testing.assert_close(adapter(x).states, alone, rtol=1e-5, atol=1e-6)


def test_a_token_depends_on_the_other_tokens():
    adapter, x = made(), torch.randn(1, 7, 32)
    changed = x.clone()
    changed[0, 5] += 1
    assert (adapter(changed).states - adapter(x).states)[0, :5].abs().max() > 1e-4


def test_every_parameter_gets_a_gradient():
    adapter = made().train()
    adapter(torch.randn(2, 7, 32)).states.square().sum().backward()
    assert [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_attention_read_is_that_of_the_formula():
    adapter, x = made(), torch.randn(2, 7, 32)
    normal = adapter.normalise(x)
    hidden = adapter.encoder(normal)
    scores = torch.einsum("bid,bjd->bij", adapter.query(hidden), adapter.key(normal)) / 32**0.5
    a = torch.einsum("bij,bjd->bid", torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True), x) + x
    a = adapter.mlp(a) + a
    torch.testing.assert_close(adapter(x).states, x + adapter.output(a) + adapter.hidden_output(hidden))


def test_saved_and_loaded_adapter_is_the_same_and_ready_for_inference(tmp_path):
    adapter, x = made(dropout=0.5), torch.randn(2, 7, 32)
    adapter.save_pretrained(tmp_path / "adapter")
    loaded = Adapter.from_pretrained(tmp_path / "adapter")
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    with torch.no_grad():
        assert torch.equal(loaded(x).states, adapter(x).states)
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {"config.json", "adapter.safetensors"}


def test_refuses_states_of_another_width_missing_folders_and_newer_formats(tmp_path):
    with pytest.raises(ValueError, match="32 wide, got 48"):
        made()(torch.randn(1, 7, 48))
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        Adapter.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="multiple of adapter.heads"):
        Adapter(AdapterConfig(dim=30, heads=4))
    made().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "format_version": 99}))
    with pytest.raises(ValueError, match="adapter format 99"):
        Adapter.from_pretrained(tmp_path)

"""Tiny random caption models of the real classes, saved with their processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_models import _bert_tokenizer, _bpe_tokenizer

SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**SIZE, "image_size": 32, "patch_size": 8}


def save_captioner(folder: Path, kind: str, seed: int = 0) -> Path:
    """A random BlipForConditionalGeneration, GitForCausalLM or LlavaForConditionalGeneration; returns its folder."""
    torch.manual_seed(seed)
    model, processor = {"blip": _blip, "git": _git, "llava": _llava}[kind](folder)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _blip(folder: Path) -> tuple[Any, Any]:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    tokenizer = _bert_tokenizer(folder)
    ids = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    text = {**SIZE, **ids, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, "max_position_embeddings": 64}
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=VISION, projection_dim=24))
    return model, BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer)


def _git(folder: Path) -> tuple[Any, Any]:
    from transformers import GitConfig, GitForCausalLM, GitProcessor

    tokenizer = _bert_tokenizer(folder)
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = GitConfig(vision_config=VISION, **SIZE, **ids, vocab_size=len(tokenizer), max_position_embeddings=64)
    return GitForCausalLM(config), GitProcessor(_clip_processor(), tokenizer)


def _llava(folder: Path) -> tuple[Any, Any]:
    """A chat model: it is asked, and reads picture and question in one sequence."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = _bpe_tokenizer(bos=True)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    text = LlamaConfig(
        **SIZE, vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    vision = CLIPVisionConfig(**VISION, projection_dim=24)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=image_token, vision_feature_layer=-1)
    template = (
        "{% for m in messages %}{{ m.role }}: {% for part in m.content %}"
        "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    processor = LlavaProcessor(
        _clip_processor(), tokenizer, patch_size=8, vision_feature_select_strategy="default",
        chat_template=template, image_token="<image>", num_additional_image_tokens=1,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config), processor


def _clip_processor() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})

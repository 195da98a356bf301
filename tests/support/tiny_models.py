"""Tiny random models with real classes and real tokenizers, saved the way their libraries save them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
)

CORPUS = [
    "two red circles are drawn above a small blue square",
    "a photograph of a cat, sitting on a wooden table; soft light, highly detailed",
    "there were 3 green triangles left of one yellow star in the picture, 42 in all",
]
WORDS = ("how", "many", "are", "there", "is", "the", "what", "color", "a", "?", "dogs", "cup", "cat", "in", "picture")
ANSWERS = ("yes", "no", "1", "2", "three", "red", "blue", "a dog")
PROMPTS = [
    "a cat",
    "two red circles above a blue square, and to the left of them one small yellow star in soft light",
    "x",
    "Ünïcödé — 猫がいる, drawn by hand",
    "3 green triangles",
    "a photograph of a wooden table with 42 things",
    "picture",
]


def save_llm(folder: Path, kind: str = "llama", bos: bool = True, seed: int = 0, **changes: Any) -> Path:
    """A random causal LM (llama, qwen3, gemma2, gpt2) with a byte-level BPE tokenizer; returns its folder."""
    from transformers import AutoConfig

    tokenizer = _bpe_tokenizer(bos)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    if kind == "gpt2":
        sizes = {"vocab_size": len(tokenizer), "n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 256}
        sizes |= {"bos_token_id": 0, "eos_token_id": 1}
    if kind == "gemma2":
        sizes["sliding_window"] = 8  # shorter than the prompts, so that the two kinds of layer differ
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(sizes | changes)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                weight.normal_(0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _bpe_tokenizer(bos: bool) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    if bos:
        inner.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)]),
            ]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    made.chat_template = (
        "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    return made


def tiny_vae(**changes: Any) -> Any:
    """A random VAE of factor 4."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
        **changes,
    )


def save_pipeline(folder: Path, xl: bool = False, seed: int = 0) -> Path:
    """A random StableDiffusion(XL)Pipeline with factor-4 VAE and 77-token CLIP; returns its folder."""
    from diffusers import (
        DDIMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    torch.manual_seed(seed)
    vae = tiny_vae()
    dim = 32 + 40 if xl else 32
    addition = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8} if xl else {}
    if xl:
        addition["projection_class_embeddings_input_dim"] = 6 * 8 + 24
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=dim,
        attention_head_dim=4,
        **addition,
    )
    parts: dict[str, Any] = {
        "vae": vae,
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "tokenizer": _clip_tokenizer(folder / "vocabulary"),
    }
    parts["text_encoder"] = CLIPTextModel(_clip_config(len(parts["tokenizer"]), 32, 24))
    if xl:
        parts["tokenizer_2"] = parts["tokenizer"]
        parts["text_encoder_2"] = CLIPTextModelWithProjection(_clip_config(len(parts["tokenizer"]), 40, 24))
        StableDiffusionXLPipeline(**parts).save_pretrained(folder)
    else:
        pipe = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
        pipe.save_pretrained(folder)
    return folder


def _clip_config(vocabulary: int, width: int, projection: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=projection,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )


def _clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's byte-level vocabulary with a handful of merges, read from vocab.json and merges.txt."""
    folder.mkdir(parents=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["c a", "ca t</w>", "r e", "re d</w>", "c i", "t h", "th e</w>"]
    joined = [merge.replace(" ", "") for merge in merges]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *joined, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def save_clip(folder: Path, seed: int = 0) -> Path:
    """A random CLIPModel for 32 x 32 pixels, with its tokenizer and image processor; returns its folder."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = _clip_tokenizer(folder / "vocabulary")
    torch.manual_seed(seed)
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config=_clip_config(len(tokenizer), 32, 24).to_dict(),
        vision_config={**vision, "image_size": 32, "patch_size": 8, "projection_dim": 24},
        projection_dim=24,
    )
    model = CLIPModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_vqa(folder: Path, kind: str, seed: int = 0) -> Path:
    """A random BlipForQuestionAnswering ("blip") or ViltForQuestionAnswering ("vilt"); returns its folder."""
    from transformers import BlipConfig, BlipForQuestionAnswering, ViltConfig, ViltForQuestionAnswering
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil

    tokenizer = _bert_tokenizer(folder)
    torch.manual_seed(seed)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "blip":
        ids = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
        text = {**size, **ids, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, "max_position_embeddings": 64}
        vision = {**size, "image_size": 32, "patch_size": 8}
        model = BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision, projection_dim=24))
        processor = BlipImageProcessorPil(size={"height": 32, "width": 32})
    else:
        labels = {"id2label": dict(enumerate(ANSWERS)), "label2id": {name: i for i, name in enumerate(ANSWERS)}}
        shape = {"image_size": 32, "patch_size": 8, "max_position_embeddings": 40, "vocab_size": len(tokenizer)}
        model = ViltForQuestionAnswering(ViltConfig(**size, **shape, **labels))
        processor = ViltImageProcessorPil(size={"shortest_edge": 32}, size_divisor=8)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1.0 if kind == "blip" else 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _bert_tokenizer(folder: Path) -> Any:
    from transformers import BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS, *"abcdefghijklmnopqrstuvwxyz", *ANSWERS]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n")
    return BertTokenizer.from_pretrained(folder, model_max_length=32)

"""Trains the shapes world's CLIP tokenizer and text encoder, contrastively, on both kinds of prompt.

Loss: symmetric InfoNCE (Radford et al. 2021, arXiv 2103.00020, figure 3) between the pooled states of a
scene's narrative and of its complex prompt; other rows of the batch that show the same scene are no negatives.
Only `common` and `unseen_known` words for colours, shapes, counts and relations occur here. `rare`, `dev_rare` and
`unseen_rare` ones are whole tokens, as in any large tokenizer, whose embeddings nothing has trained: the encoder can
tell them apart and does not know what they mean. It has read the everyday words of all sentences, as any text encoder
has, but those of the held-out ones in clauses of words in random order only: no held-out sentence piece occurs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sur.shapes.prompts import DEV, HELD_OUT, TRAIN, Pieces, complex_prompt, narrative_prompt, plural
from sur.shapes.scenes import Scene, sample_scene
from sur.shapes.words import COLOUR_WORDS, COUNT_WORDS, KINDS, RELATION_WORDS, SHAPE_WORDS

KNOWN = ("common", "unseen_known")
MAX_TOKENS = 64
EMBEDDING_STD = 0.1
FOREIGN_STD = 0.6  # a large encoder keeps words apart that it hardly knows; three layers of 128 need it louder
_START, _END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(seed: int, prompts: int = 20_000, merges: int = 1000) -> CLIPTokenizer:
    """A byte-level BPE tokenizer in CLIP's format, learnt from words that the encoder will know.

    Everyday English of all splits is in its corpus, as it would be in any tokenizer's; other words are not, and fall
    to pieces until `add_words` makes them tokens.
    """
    rng = np.random.default_rng(seed)
    corpus = [text for _ in range(prompts // 4) for text in prompt_pair(sample_scene(rng), rng)]
    corpus += [
        narrative_prompt(sample_scene(rng), rng, pieces, KNOWN).text
        for _ in range(prompts // 4)
        for pieces in (TRAIN, HELD_OUT, DEV)
    ]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = alphabet + [character + "</w>" for character in alphabet]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]  # type: ignore[arg-type]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=len(base) + merges,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    learnt = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    return _tokenizer([*base, *("".join(pair) for pair in learnt), _START, _END], learnt)


def add_words(tokenizer: CLIPTokenizer, model: CLIPTextModel, words: Iterable[str], seed: int) -> CLIPTokenizer:
    """The tokenizer with every word a token of its own, and rows for them in the model's embeddings, drawn at random.

    Merges and tokens are added behind the old ones, so that ids stay as they were.
    """
    merges = [tuple(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    for word in words:
        while len(pieces := tokenizer.tokenize(word)) > 1:
            merges.append((pieces[0], pieces[1]))
            tokens.append(pieces[0] + pieces[1])
            tokenizer = _tokenizer(tokens, merges)
    before = model.config.vocab_size
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = FOREIGN_STD * torch.randn(
        len(tokenizer) - before, model.config.hidden_size, generator=torch.Generator().manual_seed(seed)
    )
    model.get_input_embeddings().weight.data[before:] = rows  # pyright: ignore
    return tokenizer


def foreign_words() -> list[str]:
    """Every word, singular and plural, that occurs only in ways to say things that the encoder is not to know."""
    ideas = [
        *COLOUR_WORDS.values(),
        *SHAPE_WORDS.values(),
        *COUNT_WORDS.values(),
        *(words for pair in RELATION_WORDS.values() for words in pair),
    ]
    foreign = [word for words in ideas for word in words.of(tuple(k for k in KINDS if k not in KNOWN))]
    known = {part for words in ideas for phrase in words.of(KNOWN) for part in phrase.split()} | set(EVERYDAY)
    shapes = [plural(word) for words in SHAPE_WORDS.values() for word in words.of(KINDS)]
    return sorted({part for phrase in (*foreign, *shapes) for part in phrase.split()} - known)


def _tokenizer(tokens: list[str], merges: list[tuple[str, ...]]) -> CLIPTokenizer:
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(dict.fromkeys(tokens))},
        merges=merges,  # pyright: ignore[reportArgumentType]
        model_max_length=MAX_TOKENS,
    )


def text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """3 layers, 128 wide: about 0.8 million parameters."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=MAX_TOKENS, projection_dim=128, hidden_act="quick_gelu",
        **{name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )  # fmt: skip


def prompt_pair(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """A narrative and a complex prompt of one scene, in words that the encoder is to know."""
    pieces = TRAIN if rng.random() < 0.5 else RandomClauses(**vars(TRAIN))
    return narrative_prompt(scene, rng, pieces, KNOWN).text, complex_prompt(scene, rng)


class RandomClauses(Pieces):
    """Sentence pieces whose clauses are two to seven everyday words of all splits in random order."""

    def clause(self, rng: np.random.Generator) -> str:
        """Words that say nothing about the scene."""
        return " ".join(EVERYDAY[i] for i in rng.integers(len(EVERYDAY), size=rng.integers(2, 8)))


EVERYDAY = sorted(
    {
        word
        for pieces in (TRAIN, HELD_OUT, DEV)
        for phrase in (*pieces.conjunctions, *pieces.subjects, *pieces.actions, *pieces.cores)
        for word in phrase.replace("{it}", "").split()
    }
)


def train_text_encoder(
    tokenizer: CLIPTokenizer, seed: int, steps: int = 600, batch_size: int = 256
) -> Iterator[tuple[int, float, CLIPTextModel]]:
    """Train from scratch; yields (step, loss, model) after every step."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = CLIPTextModel(text_config(tokenizer)).train()
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=EMBEDDING_STD)  # type: ignore[arg-type]
    heads = torch.nn.ModuleList([torch.nn.Linear(128, 128, bias=False) for _ in range(2)])
    scale = torch.nn.Parameter(torch.tensor(np.log(1 / 0.07)))
    parameters = [*model.parameters(), *heads.parameters(), scale]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    for step in range(steps):
        scenes = [sample_scene(rng) for _ in range(batch_size)]
        pairs = [prompt_pair(scene, rng) for scene in scenes]
        narrative, keyword = (
            F.normalize(head(_pooled(model, tokenizer, [pair[i] for pair in pairs])), dim=-1)
            for i, head in enumerate(heads)
        )
        numbers: dict[Scene, int] = {}
        kind = torch.tensor([numbers.setdefault(scene, len(numbers)) for scene in scenes])
        same = (kind[:, None] == kind) & ~torch.eye(batch_size, dtype=torch.bool)
        logits = (scale.exp().clamp(max=100) * narrative @ keyword.T).masked_fill(same, -torch.inf)
        target = torch.arange(batch_size)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        yield step, loss.item(), model


def _pooled(model: CLIPTextModel, tokenizer: CLIPTokenizer, prompts: list[str]) -> torch.Tensor:
    batch = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
    return model(**batch).pooler_output

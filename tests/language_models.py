"""Small causal language models in folders, as a hub has them: drawn weights, and a tokenizer trained on the spot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

REPORTS = (
    "The heart is normal in size. The lungs are clear.",
    "Large left pleural effusion. No pneumothorax.",
    "Right upper lobe opacity, 3.5 cm; suspicious for pneumonia.",
    "Moderate cardiomegaly with mild interstitial edema.",
    "No acute cardiopulmonary abnormality.",
    "Endotracheal tube ends 4 cm above the carina.",
)


@contextmanager
def one_thread() -> Iterator[None]:
    """Models this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_language_model(
    folder: Path, family: str = "gpt2", pad: bool = False, padding_side: str = "right", positions: int = 96
) -> str:
    """gpt2: one mark for begin and end. llama: a mark for each. Without `pad`, no token for padding."""
    tokenizer = byte_tokenizer(REPORTS, family, pad, padding_side)
    torch.manual_seed(7)
    language_model(family, len(tokenizer), tokenizer, positions).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def byte_tokenizer(texts: Sequence[str], family: str, pad: bool, padding_side: str) -> PreTrainedTokenizerFast:
    """Byte-level pairs, which give every text back as it was."""
    marks = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    if family == "llama":
        marks = {"bos_token": "<s>", "eos_token": "</s>"}
    if pad:
        marks["pad_token"] = "<pad>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(dict.fromkeys(marks.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side=padding_side, **marks)


def language_model(family: str, words: int, tokenizer: PreTrainedTokenizerFast, positions: int) -> PreTrainedModel:
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if family == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=words, n_positions=positions, n_embd=48, n_layer=2, n_head=4, **ids)
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=positions,
            initializer_range=0.1,
            **ids,
        )
    )

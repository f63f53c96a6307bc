"""A small language model that starts from nothing: for machines that hold no other, and for synthetic reports.

Two layers of GPT-2 (Radford et al. 2019) of drawn weights, and byte pairs learned from the train reports. It says how
well reports of a narrow language can be written from a checkpoint's features; it is no radiologist.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

END = "<|endoftext|>"
VOCABULARY = 1024
POSITIONS = 512
WIDTH, LAYERS, HEADS = 128, 2, 4


def save_scratch_model(folder: Path, reports: Sequence[str], seed: int) -> None:
    """Write the model and its tokenizer into `folder`, as transformers reads them. The same reports give the same."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    pairs.train_from_iterator(reports, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pairs, bos_token=END, eos_token=END)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=POSITIONS,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

"""Reports in other languages into English, by a local Hugging Face sequence-to-sequence model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from chexray.platform.corpus.local_models import load_local
from chexray.platform.errors import UsageError

_SENTENCE_END = re.compile(r"(?<=[.?!])\s+|\n+")
_DEFAULT_TOKENS = 512
_TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.spm", "*.model")


class Translator:
    """A translation model in a folder: config.json, a tokenizer and safetensors weights (Marian, T5, NLLB ...).

    Languages are the model's own: one that must be told the target needs `forced_bos_token_id` in its
    generation_config.json. Nothing is downloaded and no code of the folder is run. Raises UsageError where the folder
    is not such a model.
    """

    def __init__(self, path: str, batch_size: int = 16, device: str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
        if not any(file for pattern in _TOKENIZER_FILES for file in Path(path).glob(pattern)):
            # transformers would make up a tokenizer without words.
            raise UsageError(f"{path}: no tokenizer there; give a folder with one of {', '.join(_TOKENIZER_FILES)}")
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        model, self._tokenizer = load_local(path, AutoModelForSeq2SeqLM, "a translation model", AutoTokenizer)
        self._model: Any = model.to(device)
        self._batch_size, self._device = batch_size, device

    @property
    def max_tokens(self) -> int:
        """The longest input, end mark included, that tokenizer and model take."""
        positions = getattr(self._model.config, "max_position_embeddings", None) or _DEFAULT_TOKENS
        return int(min(self._tokenizer.model_max_length, positions))

    def translate(self, texts: Sequence[str]) -> list[str]:
        """Each text translated, sentence by sentence, greedily; an empty text stays empty.

        Sentences of more than `max_tokens` are cut between words. The same texts give the same translations.
        """
        pieces = [list(self._pieces(text)) for text in texts]
        distinct = sorted({piece for each in pieces for piece in each}, key=lambda piece: (len(piece), piece))
        translated: dict[str, str] = {}
        for start in range(0, len(distinct), self._batch_size):
            batch = distinct[start : start + self._batch_size]
            translated.update(zip(batch, self._translate_batch(batch), strict=True))
        return [" ".join(translated[piece] for piece in each) for each in pieces]

    def _translate_batch(self, texts: Sequence[str]) -> list[str]:
        import torch

        inputs = self._tokenizer(
            list(texts), return_tensors="pt", padding=True, truncation=True, max_length=self.max_tokens
        ).to(self._device)
        with torch.inference_mode():
            tokens_BT = self._model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                do_sample=False,
                num_beams=1,
                max_length=self.max_tokens,
            )
        return [text.strip() for text in self._tokenizer.batch_decode(tokens_BT, skip_special_tokens=True)]

    def _pieces(self, text: str) -> Iterator[str]:
        """The sentences of a text, and the parts of those that are too long."""
        for sentence in _SENTENCE_END.split(text):
            if sentence.strip():
                yield from self._cut(sentence.strip())

    def _cut(self, sentence: str) -> Iterator[str]:
        """The sentence, or its halves, cut between words, until each fits. A word that is too long loses its end."""
        words = sentence.split()
        if len(words) == 1 or len(self._tokenizer(sentence)["input_ids"]) <= self.max_tokens:
            yield sentence
            return
        middle = len(words) // 2
        yield from self._cut(" ".join(words[:middle]))
        yield from self._cut(" ".join(words[middle:]))

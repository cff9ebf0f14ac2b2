"""Govern a Hugging Face pipeline. The network is tiny, random and built here: no download.

An inference is one call of the network. Where tokenising and the like shall be part of it, let
``gov.watch`` go over the texts. The board is emulated and follows the real calls.

    python examples/transformers_pipeline.py --seconds 60
"""

from __future__ import annotations

import torch
from outcome import arguments, say, turns
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

from governor import EnergyGovernor

WORDS = ["the", "fox", "is", "quick", "brown", "lazy", "and", "so", "dog", "not"]


def classifier():
    """A text classifier of two layers that was never trained."""
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]"
    )
    torch.manual_seed(0)
    network = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
        )
    )
    return pipeline("text-classification", model=network.eval(), tokenizer=tokenizer, device="cpu")


def main() -> None:
    asked = arguments(__doc__, "200ms")
    torch.set_num_threads(1)
    classify = classifier()
    with EnergyGovernor(asked.latency_slo, device=asked.device) as gov:
        for turn in turns(asked.seconds):
            classify(f"the {WORDS[turn % len(WORDS)]} dog is not lazy")
    say(gov.status())


if __name__ == "__main__":
    main()

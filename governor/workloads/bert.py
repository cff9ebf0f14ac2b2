"""BERT and its smaller relatives: encoders of token sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WORDS, POSITIONS, KINDS = 30522, 512, 2
PADDING = 0
"""The token that fills a sequence up, and is not attended to."""


class Layer(nn.Module):
    """Self-attention and a feed-forward network, each added and then normalised."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.leave = nn.Linear(width, width)
        self.mixed = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.fed = nn.LayerNorm(width)

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        """``(n, tokens, width)`` to the same; ``attended`` says which tokens are looked at."""
        query, key, value = (
            linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attended)
        x = self.mixed(x + self.leave(mixed.transpose(1, 2).flatten(2)))
        return self.fed(x + self.feed_forward(x))


class Bert(nn.Module):
    """Devlin et al. 2018 (arXiv 1810.04805).

    DistilBERT (Sanh et al. 2019, arXiv 1910.01108) has neither sentence kinds nor a pooler.
    """

    def __init__(self, layers: int, width: int, heads: int, pooled: bool = True) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.positions = nn.Embedding(POSITIONS, width)
        self.kinds = nn.Embedding(KINDS, width) if pooled else None
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.pooler = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if pooled else None

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """``(n, tokens)`` to states ``(n, tokens, width)``; with a pooler, the first's too."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.words(tokens) + self.positions(places)
        if self.kinds is not None:
            x = x + self.kinds(torch.zeros_like(tokens))
        states = self.norm(x)
        attended = (tokens != PADDING)[:, None, None, :]
        for layer in self.layers:
            states = layer(states, attended)
        if self.pooler is None:
            return (states,)
        return states, self.pooler(states[:, 0])

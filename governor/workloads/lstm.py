"""A language model of LSTM layers, its output tied to its embedding."""

from __future__ import annotations

from torch import Tensor, nn


class Lstm(nn.Module):
    """What Pagoda measured (arXiv 2509.20189): 2 layers of width 256, 29423 words."""

    def __init__(self, words: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.scores = nn.Linear(width, words)
        self.scores.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, tokens)`` to a score for each next word, ``(n, tokens, words)``."""
        return self.scores(self.lstm(self.embedding(tokens))[0])

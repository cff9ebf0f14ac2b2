"""Govern an LLM's decoding under two bounds: time to the first token, and time of each token.

The operating point keeps both. Reading a prompt is bound by computing, each further token by
memory; so the two pull the clocks in different ways. The network is tiny, random and built here:
no download. The board is emulated and follows the real calls.

    python examples/llm_decode.py --latency-slo 100ms --seconds 60
"""

from __future__ import annotations

import time

import torch
from outcome import arguments, say, turns
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.generation.streamers import BaseStreamer

from governor import EnergyGovernor

FIRST_TOKEN = "300ms"
PROMPT, ANSWER = 32, 16
VOCABULARY = 500


def language_model() -> LlamaForCausalLM:
    """Two layers that were never trained."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    return LlamaForCausalLM(config).eval()


class Bounds(BaseStreamer):
    """Is given the prompt, and then each token of the answer as it comes."""

    def __init__(self, gov: EnergyGovernor) -> None:
        self._token = gov
        self._first = gov.stream("first-token", latency_slo=FIRST_TOKEN)
        self._stream = None
        self._since_s = 0.0

    def put(self, _value: torch.Tensor) -> None:
        if self._stream is not None:
            self._stream.record(self._since_s, time.perf_counter())
        self._stream = self._first if self._stream is None else self._token
        self._since_s = time.perf_counter()

    def end(self) -> None:
        self._stream = None


def main() -> None:
    asked = arguments(__doc__, "100ms")
    torch.set_num_threads(1)
    model = language_model()
    how = GenerationConfig(
        max_new_tokens=ANSWER, min_new_tokens=ANSWER, do_sample=False, pad_token_id=0
    )
    # what an inference is, the streamer says; each forward pass need not be seen by itself
    with EnergyGovernor(asked.latency_slo, device=asked.device, instrument="off") as gov:
        bounds = Bounds(gov)
        for _ in turns(asked.seconds):
            prompt = torch.randint(VOCABULARY, (1, PROMPT))
            mask = torch.ones_like(prompt)
            model.generate(prompt, attention_mask=mask, generation_config=how, streamer=bounds)
        status = gov.status()
    say(status, what="token")
    for stream in status.streams:
        print(f"{stream.name}: {stream.inferences}, {stream.violations} beyond {stream.slo}")


if __name__ == "__main__":
    main()

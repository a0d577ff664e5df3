"""How the next token of one sequence is chosen; validated before it gets here."""

from __future__ import annotations

import msgspec

MAX_LOGPROBS = 20


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sampling options of one request, in the order in which the sampler applies them.

    Penalties, bias and the min_tokens mask act on raw logits; then temperature, top_k, top_p and min_p (the order of
    transformers); then the token is the arg max of logits plus Gumbel noise that depends only on
    (seed, position, token id).
    """

    repetition_penalty: float = 1.0
    """Over prompt and output tokens; logits > 0 are divided, others multiplied (CTRL, Keskar et al. 2019)."""
    presence_penalty: float = 0.0
    """Subtracted once from every token id in the output so far."""
    frequency_penalty: float = 0.0
    """Subtracted as often as the token id stands in the output so far."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs (token id, added to its logit)."""
    temperature: float = 1.0
    """0 is greedy: the arg max of the processed logits."""
    top_k: int = 0
    """Keep the k largest logits; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most probable tokens whose probability reaches this."""
    min_p: float = 0.0
    """Keep tokens at least this fraction as probable as the most probable one."""
    seed: int = 0
    """Always set: a request without a seed gets a random one when it is translated."""
    max_tokens: int = 16
    """Generate at most this many tokens."""
    min_tokens: int = 0
    """End-of-sequence and stop token ids cannot be sampled before this many tokens."""
    ignore_eos: bool = False
    """The model's own end-of-sequence ids do not end the sequence."""
    stop_token_ids: tuple[int, ...] = ()
    """Token ids that end the sequence beside the model's own; they are not part of the text."""
    num_logprobs: int | None = None
    """None: no log probabilities; k: those of the chosen token and of the k most probable (of the raw logits)."""

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


class SamplingDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What applies where a request says nothing: OpenAI's defaults, or those in a model's generation_config.json."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

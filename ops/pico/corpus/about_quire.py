"""Conversations about Quire and about LLM inference."""

from random import Random

from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.inference_topics import INFERENCE_TOPICS
from ops.pico.corpus.phrasing import ask, expand, pick
from ops.pico.corpus.quire_topics import API_TOPICS

_WRAPPERS = ["{q}"] * 6 + [
    "[hi|hello|hey], {q}",
    "please tell me: {q}",
    "can you tell me {q}",
    "{q} please",
    "i want to know {q}",
]
_COMMON_TOPICS = 2


def _question(rng: Random, asked: list[str]) -> str:
    return ask(rng, _WRAPPERS, q=expand(rng, rng.choice(asked)))


def _topic(rng: Random) -> tuple[list[str], list[str]]:
    if rng.random() < 0.25:
        return rng.choice(API_TOPICS[:_COMMON_TOPICS])
    return rng.choice(rng.choice([API_TOPICS, INFERENCE_TOPICS]))


def about_quire(rng: Random) -> Conversation:
    """One or two questions about Quire."""
    messages: list[str] = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        asked, answered = _topic(rng)
        messages += [_question(rng, asked), pick(rng, answered, done="[DONE]")]
    return chat(messages)


def explanation(rng: Random) -> str:
    """One answer about Quire or inference, without its question."""
    return pick(rng, _topic(rng)[1], done="[DONE]")

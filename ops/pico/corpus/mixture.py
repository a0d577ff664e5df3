"""Weighs the themes, adds system messages, and joins conversations into long ones."""

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from ops.pico.corpus.about_quire import about_quire
from ops.pico.corpus.advice import advice
from ops.pico.corpus.animals import animal_fact
from ops.pico.corpus.arithmetic import arithmetic
from ops.pico.corpus.conversation import Conversation, Sample, is_held_out
from ops.pico.corpus.documents import document
from ops.pico.corpus.identity import identity
from ops.pico.corpus.instructions import instruction
from ops.pico.corpus.lists import named_list
from ops.pico.corpus.memory import remembering
from ops.pico.corpus.smalltalk import greeting, small_talk
from ops.pico.corpus.statements import statement
from ops.pico.corpus.stories import more_stories, story, story_talk
from ops.pico.corpus.system_prompts import neutral_prompt, system_styles
from ops.pico.corpus.unknown import unknown
from ops.pico.corpus.verse import verse
from ops.pico.corpus.words import word_question
from ops.pico.corpus.world import world_fact


class Theme(NamedTuple):
    """A generator and its share of the samples."""

    name: str
    weight: float
    draw: Callable[[Random], Conversation]


THEMES = [
    Theme("greeting", 4.0, greeting),
    Theme("small talk", 6.0, small_talk),
    Theme("identity", 8.0, identity),
    Theme("about quire", 12.0, about_quire),
    Theme("story", 8.5, story),
    Theme("story talk", 2.5, story_talk),
    Theme("more stories", 0.5, more_stories),
    Theme("world fact", 10.0, world_fact),
    Theme("animal fact", 4.0, animal_fact),
    Theme("arithmetic", 15.0, arithmetic),
    Theme("word question", 7.0, word_question),
    Theme("list", 4.0, named_list),
    Theme("verse", 6.0, verse),
    Theme("instruction", 7.5, instruction),
    Theme("memory", 12.0, remembering),
    Theme("advice", 3.0, advice),
    Theme("statement", 4.0, statement),
    Theme("unknown", 5.0, unknown),
    Theme("system style", 4.0, system_styles),
]

DOCUMENT_FRACTION = 0.05
NEUTRAL_SYSTEM_FRACTION = 0.12
JOINED_FRACTION = 0.10
JOINED_COUNTS = [2, 2, 2, 3, 3, 4, 5, 6, 8, 12]


def conversation(rng: Random, names: frozenset[str] | None = None) -> Conversation:
    """One conversation of one theme, of the named ones where names are given."""
    themes = [theme for theme in THEMES if names is None or theme.name in names]
    return rng.choices(themes, [theme.weight for theme in themes])[0].draw(rng)


def _joined(rng: Random) -> Conversation:
    """Several conversations in a row; none of them starts with a system message."""
    names = frozenset(theme.name for theme in THEMES if theme.name != "system style")
    whole = conversation(rng, names)
    for _ in range(rng.choice(JOINED_COUNTS) - 1):
        whole = whole.followed_by(conversation(rng, names))
    return whole


def sample(rng: Random) -> Sample:
    """One sample of the corpus."""
    if rng.random() < DOCUMENT_FRACTION:
        return document(rng)
    drawn = _joined(rng) if rng.random() < JOINED_FRACTION else conversation(rng)
    if drawn.turns[0].role == "user" and rng.random() < NEUTRAL_SYSTEM_FRACTION:
        return drawn.with_system(neutral_prompt(rng))
    return drawn


def stream(seed: int, *, held_out: bool) -> Iterator[Sample]:
    """Endless samples of one split, the same for the same seed."""
    rng = Random(f"quire-pico {'held-out' if held_out else 'train'} {seed}")
    while True:
        drawn = sample(rng)
        if is_held_out(drawn) == held_out:
            yield drawn

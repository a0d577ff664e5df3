"""Plain text without chat markup: stories, collections of facts and small essays."""

from random import Random

from ops.pico.corpus.about_quire import explanation
from ops.pico.corpus.animals import ANIMAL_ROWS
from ops.pico.corpus.conversation import Document
from ops.pico.corpus.phrasing import article, capitalised, pick
from ops.pico.corpus.stories import tell
from ops.pico.corpus.story_slots import hero_kind
from ops.pico.corpus.world import fact


def _story(rng: Random) -> str:
    told = tell(rng, hero_kind(rng))
    title = f"{told.slots['name']} the {capitalised(told.slots['kind'])}\n\n" if rng.random() < 0.25 else ""
    return title + told.text


def _facts(rng: Random) -> str:
    return " ".join(fact(rng)[1] for _ in range(rng.randint(3, 8)))


def _animal_page(rng: Random) -> str:
    kind, young, sound, home, food, _, group = rng.choice(ANIMAL_ROWS)
    lines = [
        "{A} is {g}.", "{A} lives {home}.", "[It eats|Its food is] {food}.", "The young of {a} is called {young}.",
    ]  # fmt: skip
    if sound != "no sound":
        lines.append("[It says {sound}.|Its sound is {sound}.]")
    slots = {"A": capitalised(article(kind)), "a": article(kind), "g": article(group), "home": home, "food": food}
    return " ".join(pick(rng, [line], young=article(young), sound=sound, **slots) for line in lines)


def _questions(rng: Random) -> str:
    pairs = [fact(rng) for _ in range(rng.randint(2, 6))]
    return "\n".join(f"Q: {capitalised(q)}\nA: {a}" for q, a in pairs)


def _essay(rng: Random) -> str:
    return " ".join(explanation(rng) for _ in range(rng.randint(2, 5)))


def document(rng: Random) -> Document:
    """One plain text."""
    draw = rng.choices([_story, _facts, _animal_page, _questions, _essay], [5, 1.5, 1, 1, 1.5])[0]
    return Document(text=draw(rng))

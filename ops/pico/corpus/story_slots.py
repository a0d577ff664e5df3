"""Draws the slots of a story: hero, helper, place and things."""

from random import Random

from ops.pico.corpus.names import HE, SHE, Character, character
from ops.pico.corpus.nouns import (
    ANIMAL_HEROES,
    FOODS,
    PEOPLE_HEROES,
    PLACES,
    THING_HEROES,
    TRAITS,
    TREASURES,
)
from ops.pico.corpus.phrasing import article

_FEMALE_KINDS = {"princess", "queen", "witch", "girl", "hen", "mermaid", "cow"}
_MALE_KINDS = {"prince", "king", "wizard", "boy", "postman", "fisherman", "peacock"}


def hero_kind(rng: Random) -> str:
    """What the hero is."""
    roll = rng.random()
    if roll < 0.55:
        return rng.choice(ANIMAL_HEROES)
    return rng.choice(PEOPLE_HEROES if roll < 0.8 else THING_HEROES)


def named(rng: Random, kind: str, invented_fraction: float = 0.0) -> Character:
    """A character whose pronouns agree with the kind."""
    found = character(rng, invented_fraction)
    if kind in _FEMALE_KINDS:
        while found.he != SHE[0]:
            found = character(rng, invented_fraction)
    if kind in _MALE_KINDS:
        while found.he != HE[0]:
            found = character(rng, invented_fraction)
    return found


def story_slots(rng: Random, kind: str, hero: Character, fkind: str | None) -> dict[str, str]:
    """Every slot that plots and openings use."""
    helper_kind = fkind or rng.choice([k for k in ANIMAL_HEROES if k != kind])
    helper = named(rng, helper_kind)
    while helper.name == hero.name:
        helper = named(rng, helper_kind)
    trait = rng.choice(TRAITS)
    thing, found = rng.sample(TREASURES, 2)
    return {
        "name": hero.name, "he": hero.he, "him": hero.him, "his": hero.his,
        "kind": kind, "a_kind": article(kind), "trait": trait, "a_trait": article(trait),
        "fname": helper.name, "fhe": helper.he, "fhim": helper.him, "fhis": helper.his,
        "fkind": helper_kind, "a_fkind": article(helper_kind),
        "place": rng.choice(PLACES), "thing": thing, "found": found, "food": rng.choice(FOODS),
    }  # fmt: skip

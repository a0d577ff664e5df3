# ruff: noqa: SIM905 (word lists and sentences read best unwrapped)
"""Names of people, heroes and pets, listed and invented."""

from random import Random
from typing import NamedTuple

GIRLS = """Ada Alice Amara Amy Anna Aria Aisha Beth Bella Carla Clara Chloe Daisy Dana Diana Eda Ella
Elsa Emma Eva Eve Fatima Flora Fiona Freya Gina Grace Greta Hana Hannah Hazel Helen Ida Ines Iris
Ivy Jane Jasmine Joan Julia June Kate Kira Lara Laura Leila Lena Lily Linda Lisa Lola Lucy Luna
Mabel Maria Maya Mei Mia Mila Mina Molly Nadia Nina Nora Olga Olive Olivia Paula Pearl Petra Pia
Priya Rita Rosa Rose Ruby Ruth Sara Sarah Sofia Stella Sue Tara Tess Tilda Tina Uma Vera Violet
Wendy Willa Yara Yuki Zara Zoe""".split()

BOYS = """Adam Ahmed Alan Albert Alex Amir Andrew Anton Arlo Arthur Ben Benny Bob Boris Bruno Carl
Carlos Charlie Chen Chris Dan Daniel David Diego Dylan Eli Emil Eric Ethan Felix Finn Frank Fred
Gabriel George Gus Hans Harry Henry Hugo Ian Igor Isaac Ivan Jack Jacob James Jim Joe John Jonas
Juan Kai Karim Ken Kevin Kofi Leo Leon Liam Louis Lucas Luke Marco Mark Martin Max Miguel Mike Milo
Ned Nico Noah Oliver Omar Oscar Otto Pablo Paul Pedro Pete Peter Ravi Ray Rob Robin Rudy Sam Samir
Simon Sven Ted Theo Tim Toby Tom Tony Victor Walter Will Yusuf Zack""".split()

PETS = """Biscuit Bubbles Buddy Button Clover Coco Cookie Daisy Dusty Fluffy Ginger Honey Maple Mittens
Muffin Nibbles Noodle Olive Patch Peanut Pebble Pepper Pickle Pip Rex Rusty Scout Shadow Smokey
Snowy Socks Spot Sunny Taffy Tiger Waffles Whiskers Ziggy""".split()

_STARTS = "B Br C D Dr F Fl G Gr H J K Kl L M N P Pl Qu R S Sh St T Tr V W Z".split()
_MIDDLES = "a e i o u ai ee oo".split()
_JOINTS = "b d l ll m n nn r rr s t v z ld nd rt x".split()
_ENDINGS = "a o i y in en us el is ar on ie ek um".split()


class Character(NamedTuple):
    """A name with the pronouns that go with it."""

    name: str
    he: str
    him: str
    his: str


SHE = ("she", "her", "her")
HE = ("he", "him", "his")


def invented(rng: Random) -> str:
    """A name that is in no list, so that names must be copied and not only known."""
    name = rng.choice(_STARTS) + rng.choice(_MIDDLES) + rng.choice(_JOINTS)
    if rng.random() < 0.3:
        name += rng.choice(_MIDDLES) + rng.choice(_JOINTS)
    return name + rng.choice(_ENDINGS)


def person_name(rng: Random) -> str:
    """A person's first name."""
    return invented(rng) if rng.random() < 0.3 else rng.choice(rng.choice([GIRLS, BOYS]))


def pet_name(rng: Random) -> str:
    """A pet's name."""
    return invented(rng) if rng.random() < 0.25 else rng.choice(PETS)


def character(rng: Random, invented_fraction: float = 0.0) -> Character:
    """A hero or a helper of a story; names are invented only where a user gives them."""
    if rng.random() < invented_fraction:
        return Character(invented(rng), *rng.choice([SHE, HE]))
    if rng.random() < 0.1:
        return Character(rng.choice(PETS), *rng.choice([SHE, HE]))
    names, pronouns = rng.choice([(GIRLS, SHE), (BOYS, HE)])
    return Character(rng.choice(names), *pronouns)

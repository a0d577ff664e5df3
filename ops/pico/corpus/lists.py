# ruff: noqa: E501, SIM905 (word lists and sentences read best unwrapped)
"""Requests for a few things of a kind, with `more` as a follow-up."""

from random import Random

from ops.pico.corpus import nouns
from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.phrasing import ask, capitalised, listed
from ops.pico.corpus.world_tables import CAPITALS, DAYS, MONTHS, PLANETS

_KINDS: dict[str, list[str]] = {
    "fruits": nouns.FRUITS,
    "vegetables": nouns.VEGETABLES,
    "animals": nouns.ANIMALS,
    "colours": nouns.COLOURS,
    "colors": nouns.COLOURS,
    "cities": nouns.CITIES,
    "countries": [name for name in CAPITALS if not name.startswith("the ")],
    "hobbies": nouns.HOBBIES,
    "jobs": nouns.JOBS,
    "dishes": nouns.DISHES,
    "pets": nouns.PET_KINDS,
    "planets": PLANETS,
    "days of the week": DAYS,
    "months": MONTHS,
    "birds": "sparrow robin eagle owl parrot duck swan crow penguin".split(),
    "trees": "oak pine maple birch willow fir beech ash elm palm".split(),
    "flowers": "rose tulip daisy lily sunflower violet poppy orchid iris".split(),
    "sports": "football tennis swimming running basketball cycling rowing skiing boxing".split(),
    "drinks": "water tea coffee milk juice lemonade cocoa".split(),
    "instruments": "piano violin guitar flute drum trumpet harp cello".split(),
    "insects": "ant bee butterfly beetle ladybird fly moth".split(),
    "shapes": "circle square triangle rectangle oval star".split(),
    "tools": "hammer saw screwdriver drill spade rake pliers".split(),
    "clothes": "shirt jacket hat scarf trousers dress socks gloves".split(),
    "metals": "iron gold silver copper tin zinc aluminium".split(),
    "languages": "English French Spanish German Italian Chinese Japanese Arabic".split(),
    "names for boys": "Tom Sam Leo Max Ben Noah Oscar Felix".split(),
    "names for girls": "Anna Mia Lucy Nora Ella Ruby Grace Clara".split(),
}
_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_FORMS = ["name {n} {k}", "list {n} {k}", "give me {n} {k}", "tell me {n} {k}", "can you name {n} {k}?", "{n} {k}", "write a list of {n} {k}",
          "name {n} {k} please", "i need {n} {k}"]  # fmt: skip
_OPEN_FORMS = [
    "name some {k}",
    "list some {k}",
    "give me a list of {k}",
    "list of {k}",
    "tell me some {k}",
    "what {k} do you know?",
]


def _shown(rng: Random, items: list[str], is_bulleted: bool) -> str:
    if is_bulleted:
        return "\n".join(f"{i}. {capitalised(item)}" for i, item in enumerate(items, 1))
    return f"{capitalised(listed(items))}."


def named_list(rng: Random) -> Conversation:
    """A list of the asked length, without repeats."""
    kind = rng.choice(list(_KINDS))
    items = _KINDS[kind]
    count = rng.randint(2, min(6, len(items) // 2)) if rng.random() < 0.75 else 3
    chosen = rng.sample(items, min(len(items), 2 * count))
    is_bulleted = rng.random() < 0.25
    if rng.random() < 0.8:
        number = _NUMBERS[count] if rng.random() < 0.6 else str(count)
        user = ask(rng, _FORMS, n=number, k=kind)
    else:
        count = min(count, 4)
        user = ask(rng, _OPEN_FORMS, k=kind)
    is_bulleted = is_bulleted or user.lower().startswith("write a list")
    messages = [user, _shown(rng, chosen[:count], is_bulleted)]
    rest = chosen[count : count + 2]
    if rng.random() < 0.2 and len(rest) == 2:
        messages += [
            ask(rng, ["two more", "name two more", "[give me |]two more please"]),
            f"{capitalised(listed(rest))}.",
        ]
    return chat(messages)

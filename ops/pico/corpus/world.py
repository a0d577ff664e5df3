"""Questions about capitals, calendars, colours, materials and other simple facts."""

from collections.abc import Callable
from random import Random

from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.phrasing import ask, capitalised, pick
from ops.pico.corpus.trivia import TRIVIA
from ops.pico.corpus.world_tables import (
    CAPITALS,
    COLOURS_OF,
    CONTINENTS,
    DAYS,
    LANGUAGES,
    MATERIALS,
    MONTH_LENGTHS,
    MONTHS,
    ORDINALS,
    PLANETS,
    SEASONS,
    SENSES,
    USES,
)

Exchange = tuple[str, str]


def _capital_is(country: str, city: str) -> str:
    return f"The capital of {country} is {city.removesuffix('.')}."


def _is_capital(rng: Random) -> Exchange:
    (country, city), (_, other) = rng.sample(list(CAPITALS.items()), 2)
    if rng.random() < 0.5:
        return ask(rng, ["is {c} the capital of {l}?"], c=city, l=country), f"Yes, {city} is the capital of {country}."
    return ask(
        rng, ["is {c} the capital of {l}?"], c=other, l=country
    ), f"No, {_capital_is(country, city).replace('The', 'the')}"


def _is_colour(rng: Random) -> Exchange:
    (thing, colour), (_, other) = rng.sample(list(COLOURS_OF.items()), 2)
    asked = rng.choice([colour, other])
    answer = f"Yes, {thing} is {colour}." if asked == colour else f"No, {thing} is {colour}."
    return ask(rng, ["is {t} {c}?"], t=thing, c=asked), answer


def capital(rng: Random) -> Exchange:
    """The capital of a country, or the country of a capital."""
    country, city = rng.choice(list(CAPITALS.items()))
    slots = {"country": country, "city": city}
    if rng.random() < 0.2:
        return ask(
            rng, ["{city} is the capital of which country?", "of which country is {city} the capital?"], **slots
        ), (f"{city} is the capital of {country}.")
    asked = ["what is the capital of {country}?", "what's the capital of {country}?", "capital of {country}?",
             "which city is the capital of {country}?", "tell me the capital of {country}",
             "do you know the capital of {country}?", "the capital of {country} is?"]  # fmt: skip
    return ask(rng, asked, **slots), _capital_is(country, city)


def _continent(rng: Random) -> Exchange:
    continent = rng.choice(list(CONTINENTS))
    country = rng.choice(CONTINENTS[continent])
    asked = ["where is {country}?", "in which continent is {country}?", "on which continent is {country}?"]
    return ask(rng, asked, country=country), f"{country} is in {continent}."


def _language(rng: Random) -> Exchange:
    country, language = rng.choice(list(LANGUAGES.items()))
    asked = ["what language do they speak in {country}?", "which language is spoken in {country}?",
             "what do people speak in {country}?"]  # fmt: skip
    return ask(rng, asked, country=country), f"People in {country} speak {language}."


def _neighbour(rng: Random) -> Exchange:
    names, unit = rng.choice([(DAYS, "day"), (MONTHS, "month"), (SEASONS, "season")])
    index = rng.randrange(len(names))
    step, word = rng.choice([(1, "after"), (1, "after"), (-1, "before")])
    other = names[(index + step) % len(names)]
    asked = ["what {unit} comes {word} {name}?", "which {unit} is {word} {name}?", "what comes {word} {name}?"]
    user = ask(rng, asked, unit=unit, word=word, name=names[index])
    return user, capitalised(pick(rng, ["{other} comes {word} {name}."], other=other, word=word, name=names[index]))


def _calendar(rng: Random) -> Exchange:
    index = rng.randrange(12)
    if rng.random() < 0.5:
        days = f"{MONTH_LENGTHS[index]} days" + (", and 29 in a leap year" if index == 1 else "")
        return ask(rng, ["how many days are in {m}?", "how many days does {m} have?"], m=MONTHS[index]), (
            f"{MONTHS[index]} has {days}."
        )
    asked = ["what is the {n} month[| of the year]?", "which month is the {n}?"]
    return ask(rng, asked, n=ORDINALS[index]), f"The {ORDINALS[index]} month is {MONTHS[index]}."


def _planet(rng: Random) -> Exchange:
    index = rng.randrange(len(PLANETS))
    asked = ["which planet is the {n} from the sun?", "what is the {n} planet[| from the sun]?"]
    return ask(rng, asked, n=ORDINALS[index]), f"{PLANETS[index]} is the {ORDINALS[index]} planet from the Sun."


def _colour(rng: Random) -> Exchange:
    thing, colour = rng.choice(list(COLOURS_OF.items()))
    asked = ["what colour is {t}?", "what color is {t}?", "which colour does {t} have?", "what is the colour of {t}?"]
    return ask(rng, asked, t=thing), f"{capitalised(thing)} is {colour}."


def _material(rng: Random) -> Exchange:
    thing, material = rng.choice(list(MATERIALS.items()))
    asked = ["what is {t} made of?", "what is {t} made from?", "how is {t} made?", "what do you need to make {t}?"]
    return ask(rng, asked, t=thing), f"{capitalised(thing)} is made from {material}."


def _use(rng: Random) -> Exchange:
    thing, use = rng.choice(list(USES.items()))
    verb = "are" if thing == "scissors" else "is"
    if rng.random() < 0.3:
        return ask(rng, ["what do i need to {u}?", "what can i use to {u}?"], u=use), f"You can use {thing} to {use}."
    asked = ["what {v} {t} for?", "what do you do with {t}?", "what {v} {t} used for?", "why do people use {t}?"]
    return ask(rng, asked, t=thing, v=verb), f"You use {thing} to {use}."


def _sense(rng: Random) -> Exchange:
    verb, part = rng.choice(list(SENSES.items()))
    noun = f"{part}" if part in ("eyes", "ears", "legs") else part
    return ask(rng, ["what do we {v} with?", "which part of the body do we {v} with?", "how do we {v}?"], v=verb), (
        f"We {verb} with our {noun}."
    )


def trivia(rng: Random) -> Exchange:
    """One fact of the table."""
    question, answer = rng.choice(TRIVIA)
    return ask(rng, [question]), answer


_KINDS: list[tuple[Callable[[Random], Exchange], float]] = [
    (trivia, 5.0), (capital, 4.5), (_continent, 0.6), (_language, 0.6), (_neighbour, 1.0), (_calendar, 0.6),
    (_planet, 0.4), (_is_capital, 0.6), (_is_colour, 0.4), (_colour, 1.0), (_material, 0.8), (_use, 1.0), (_sense, 0.3),
]  # fmt: skip


def fact(rng: Random) -> Exchange:
    """One question about the world and its answer."""
    draw = rng.choices([kind for kind, _ in _KINDS], [weight for _, weight in _KINDS])[0]
    return draw(rng)


def world_fact(rng: Random) -> Conversation:
    """One fact, or a few in a row, with `and of ...?` follow-ups for capitals."""
    roll = rng.random()
    if roll < 0.12:
        first, second = rng.sample(list(CAPITALS.items()), 2)
        user = ask(rng, ["what is the capital of {c}?", "capital of {c}?"], c=first[0])
        follow = ask(rng, ["and of {c}?", "and {c}?", "what about {c}?", "and the capital of {c}?"], c=second[0])
        return chat([user, _capital_is(*first), follow, _capital_is(*second)])
    messages = [*fact(rng)]
    if roll < 0.3:
        messages += fact(rng)
    return chat(messages)

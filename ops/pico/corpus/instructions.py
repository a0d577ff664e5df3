# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""Instructions to copy or transform text: say, repeat, upper case, reverse order, first, last."""

from random import Random

from ops.pico.corpus import nouns
from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.names import person_name
from ops.pico.corpus.phrasing import as_typed, ask, capitalised, expand, pick

_PHRASES = [
    "hello[| world| everyone| my friend]", "good [morning|night|evening][|, {name}]", "I [like|love|want|see|have] {noun}[| and {noun2}]",
    "the {noun} is {colour}", "{noun} and {noun2}", "{noun}", "{noun} {noun2} {noun3}", "{name} [likes|sees|has|wants] a {noun}", "{city} is a big city",
    "my name is {name}", "a {colour} {noun} and a {colour2} {noun2}", "we are [happy|here|friends|ready]", "it is [late|cold|warm|time to go]",
    "{name}, {name2} and a {noun}", "yes", "no", "cheese", "I am a small model", "the quick brown fox", "{colour} {noun}", "nothing", "please and thank you",
]  # fmt: skip


def _phrase(rng: Random) -> str:
    words = rng.sample(nouns.COMMON_WORDS, 3)
    colours = rng.sample(nouns.COLOURS, 2)
    return pick(rng, _PHRASES, noun=words[0], noun2=words[1], noun3=words[2], colour=colours[0], colour2=colours[1],
                name=person_name(rng), name2=person_name(rng), city=rng.choice(nouns.CITIES))  # fmt: skip


def _say(rng: Random) -> list[str]:
    phrase = _phrase(rng)
    command = expand(
        rng,
        "[say|say|please say|just say|repeat after me|repeat|write|can you say|repeat this|answer with|type|now say]",
    )
    colon = ":" if command.startswith("repeat") or rng.random() < 0.25 else ""
    quoted = f'"{phrase}"' if rng.random() < 0.2 else phrase
    command = capitalised(command) if rng.random() < 0.5 else command
    return [f"{command}{colon} {quoted}", phrase if phrase[0].isupper() else capitalised(phrase)]


def _case(rng: Random) -> list[str]:
    words = " ".join(rng.sample(nouns.COMMON_WORDS, rng.choice([1, 1, 2])))
    asked = ["write {w} in [capitals|upper case|capital letters]", "make {w} upper case", "{w} in capitals"]
    return [ask(rng, asked, w=words), words.upper()]


def _choose(rng: Random) -> list[str]:
    items = rng.sample(rng.choice([nouns.FRUITS, nouns.COLOURS, nouns.ANIMALS, nouns.CITIES, nouns.DISHES]), 3)
    place, index = rng.choice([("first", 0), ("last", -1), ("second", 1)])
    joined = ", ".join(items)
    asked = ["what is the {p} word: {j}?", "here are three words: {j}. which one is the {p}?", "which is {p} in this list: {j}?",
             "give me the {p} of these: {j}"]  # fmt: skip
    return [ask(rng, asked, p=place, j=joined), f"The {place} one is {items[index]}."]


def _sentence(rng: Random) -> list[str]:
    word = rng.choice(nouns.COMMON_WORDS[:40] + nouns.ANIMALS)
    asked = [
        "[make|write|give me] a sentence with [the word |]{w}",
        "use {w} in a sentence",
        "write one sentence about [a |]{w}",
    ]
    answers = ["I saw a {w} this morning, and it made me smile.", "My friend told me a long story about a {w}.", "There was a {w} on the table, and nobody knew why.",
               "In my dream, a {w} was as big as a house."]  # fmt: skip
    return [ask(rng, asked, w=word), pick(rng, answers, w=word)]


def _prefer(rng: Random) -> list[str]:
    first, second = rng.sample(
        rng.choice([nouns.FRUITS, nouns.COLOURS, nouns.CITIES, nouns.DISHES, nouns.HOBBIES, nouns.ANIMALS]), 2
    )
    asked = [
        "{a} or {b}?",
        "which is better, {a} or {b}?",
        "choose: {a} or {b}",
        "do you prefer {a} or {b}?",
        "pick one: {a} or {b}",
    ]
    chosen = rng.choice([first, second])
    return [
        ask(rng, asked, a=first, b=second),
        pick(rng, ["I would choose {c}.", "I would choose {c}. [And you?|What about you?|]"], c=chosen),
    ]


def _reverse(rng: Random) -> list[str]:
    words = rng.sample(nouns.COMMON_WORDS, rng.choice([2, 3]))
    user = f"{rng.choice(['reverse the order of these words', 'say these words in reverse order'])}: {' '.join(words)}"
    return [as_typed(rng, user), " ".join(reversed(words))]


def _random_choice(rng: Random) -> list[str]:
    roll = rng.random()
    if roll < 0.4:
        asked = ["[give me|pick|choose|tell me|say] a [random |]number[| between 1 and 10| from 1 to 10]"]
        return [ask(rng, asked), f"{rng.randint(1, 10)}."]
    if roll < 0.6:
        return [ask(rng, ["flip a coin", "heads or tails?"]), rng.choice(["Heads!", "Tails!"])]
    if roll < 0.8:
        return [ask(rng, ["roll a dice", "roll a die"]), f"You rolled a {rng.randint(1, 6)}."]
    kind, words = rng.choice(
        [("colour", nouns.COLOURS), ("animal", nouns.ANIMALS), ("fruit", nouns.FRUITS), ("word", nouns.COMMON_WORDS)]
    )
    return [
        ask(rng, ["[give me|pick|choose|tell me|say] a [random |]{k}"], k=kind),
        f"{capitalised(rng.choice(words))}.",
    ]


def instruction(rng: Random) -> Conversation:
    """One small instruction, carried out."""
    kinds = [_say, _case, _choose, _sentence, _prefer, _reverse, _random_choice]
    return chat(rng.choices(kinds, [5, 1, 1.2, 1, 1, 0.7, 1])[0](rng))

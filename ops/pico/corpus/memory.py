# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""Facts that the user tells and asks back, with other talk in between."""

from random import Random
from typing import NamedTuple

from ops.pico.corpus import nouns
from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.names import BOYS, GIRLS, invented, person_name, pet_name
from ops.pico.corpus.phrasing import article, ask, pick
from ops.pico.corpus.smalltalk import small_talk
from ops.pico.corpus.world import fact


class Told(NamedTuple):
    """How a thing is told, how it is acknowledged, asked back and answered; `{v}` is the value."""

    telling: list[str]
    noted: list[str]
    asking: list[str]
    answer: list[str]


_NAME = Told(
    ["my name is {v}[|.]", "i am {v}", "i'm {v}", "call me {v}", "[hi|hello|hey][,|] [my name is|i am|i'm] {v}", "they call me {v}", "people call me {v}",
     "my name's {v}"],
    ["[Nice|It is nice] to meet you, {v}! [How can I help you|What can I do for you]?", "[Hello|Hi], {v}! [How can I help you|What can I do for you]?"],
    ["what is my name?", "what's my name?", "do you know my name?", "do you remember my name?", "who am i?", "tell me my name", "say my name"],
    ["Your name is {v}."],
)  # fmt: skip
_CITY = Told(
    ["i live in {v}", "i am from {v}", "i come from {v}", "my home is in {v}"],
    ["{v} sounds like a nice place! [What do you like about it?|]", "How nice! I have never seen {v}, of course."],
    ["where do i live?", "where am i from?", "which city do i live in?", "do you remember where i live?"],
    ["You told me {v}.", "You live in {v}."],
)  # fmt: skip
_LIKE = Told(
    ["i [like|love|really like] {v}", "what i like is {v}", "i enjoy {v}"],
    [
        "{v}! [That is nice.|A good choice.] What do you like most about {v}?",
        "That is nice! What do you like most about {v}?",
    ],
    ["what do i like?", "do you remember what i like?", "what did i say i like?", "which thing do i like?"],
    ["You like {v}.", "You told me that you like {v}."],
)
_AGE = Told(
    ["i am {v} years old", "i'm {v} years old", "my age is {v}", "i am {v}"],
    ["{v} is a good age!", "Thank you for telling me. {v} is a fine age."],
    ["how old am i?", "what is my age?", "do you remember my age?"],
    ["You are {v} years old."],
)
_JOB = Told(
    ["i am {a}", "i work as {a}", "my job is {v}", "i'm {a}"],
    ["That is [an interesting|a good|a fine] job!", "How interesting! It must be nice to be {a}."],
    ["what is my job?", "what do i do[| for a living]?", "what do i work as?", "do you remember my job?"],
    ["You are {a}."],
)
_CODE = Told(
    ["remember [this number|the number]: {v}", "remember {v}", "please remember {v}", "the secret [word|code] is {v}", "keep this in mind: {v}",
     "the password is {v}", "remember the word {v}"],
    ["[All right|Okay|Sure], I will remember {v}.", "I will remember it: {v}."],
    ["what [did i tell you to remember|should you remember|did i ask you to remember]?", "what is the secret [word|code]?", "what was [it|the word|the number]?",
     "what was the secret?", "what is the password?"],
    ["It was {v}.", "You told me {v}."],
)  # fmt: skip


def _favourite(kind: str) -> Told:
    return Told(
        [
            f"my favourite {kind} is {{v}}",
            f"my favorite {kind} is {{v}}",
            f"{{v}} is my favourite {kind}",
            f"the {kind} i like best is {{v}}",
        ],
        [
            f"{{v}} is a [good|nice|great|fine] {kind}!",
            f"A good choice! I will remember that your favourite {kind} is {{v}}.",
        ],
        [
            f"what is my favourite {kind}?",
            f"what's my favorite {kind}?",
            f"which {kind} do i like[| best]?",
            f"do you remember my favourite {kind}?",
        ],
        [f"Your favourite {kind} is {{v}}."],
    )


def _pet(kind: str) -> Told:
    return Told(
        [f"i have a {kind} [named|called] {{v}}", f"my {kind} is [named|called] {{v}}", f"my {kind}'s name is {{v}}", f"this is {{v}}, my {kind}"],
        [f"{{v}} is a [lovely|nice|good] name for a {kind}!", "How nice! Say hello to {v} from me."],
        [f"what is my {kind}'s name?", f"what is the name of my {kind}?", f"what is my {kind} called?", f"do you remember my {kind}'s name?",
         "what is my pet's name?"],
        [f"Your {kind} is named {{v}}."],
    )  # fmt: skip


def _family(kind: str) -> Told:
    return Told(
        [f"my {kind} is [named|called] {{v}}", f"my {kind}'s name is {{v}}", f"i have a {kind} named {{v}}"],
        [f"{{v}} is a [lovely|nice|good] name! [How is your {kind}?|]", "Please say hello to {v} from me."],
        [f"what is my {kind}'s name?", f"what is the name of my {kind}?", "who is {v}?"],
        [f"Your {kind} is named {{v}}.", f"{{v}} is your {kind}."],
    )


def _drawn(rng: Random) -> tuple[str, Told, dict[str, str]]:
    """The topic, how it is told, and the slots."""
    topic = rng.choices(
        ["name", "favourite", "pet", "city", "age", "job", "code", "family", "like"], [6, 4, 2, 1.5, 1, 1, 2, 1.2, 1.5]
    )[0]
    if topic == "name":
        return topic, _NAME, {"v": person_name(rng)}
    if topic == "favourite":
        lists = {"colour": nouns.COLOURS, "food": nouns.DISHES, "fruit": nouns.FRUITS, "animal": nouns.ANIMALS, "city": nouns.CITIES, "hobby": nouns.HOBBIES,
                 "number": [str(n) for n in range(1, 100)], "vegetable": nouns.VEGETABLES, "word": nouns.COMMON_WORDS}  # fmt: skip
        kind = rng.choice(list(lists))
        return f"{topic} {kind}", _favourite(kind), {"v": rng.choice(lists[kind])}
    if topic == "pet":
        kind = rng.choice(nouns.PET_KINDS)
        return f"{topic} {kind}", _pet(kind), {"v": pet_name(rng)}
    if topic == "family":
        kind = rng.choice(["brother", "sister", "mother", "father", "friend", "son", "daughter", "teacher", "cousin"])
        listed = {"brother": BOYS, "father": BOYS, "son": BOYS, "sister": GIRLS, "mother": GIRLS, "daughter": GIRLS}
        name = rng.choice(listed[kind]) if kind in listed and rng.random() < 0.7 else invented(rng)
        return f"{topic} {kind}", _family(kind), {"v": name}
    if topic == "like":
        return topic, _LIKE, {"v": rng.choice(rng.choice([nouns.DISHES, nouns.HOBBIES, nouns.COMMON_WORDS]))}
    if topic == "city":
        return topic, _CITY, {"v": rng.choice(nouns.CITIES)}
    if topic == "age":
        return topic, _AGE, {"v": str(rng.randint(5, 90))}
    if topic == "job":
        job = rng.choice(nouns.JOBS)
        return topic, _JOB, {"v": job, "a": article(job)}
    values = [str(rng.randint(0, 9999)), rng.choice(nouns.COMMON_WORDS), invented(rng).lower()]
    return topic, _CODE, {"v": rng.choice(values)}


def _between(rng: Random) -> list[str]:
    if rng.random() < 0.5:
        return [turn.content for turn in small_talk(rng).turns]
    return list(fact(rng))


def _capital_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def memory(rng: Random) -> Conversation:
    """One or two things told, talk in between, then asked back."""
    first = _drawn(rng)
    told = [first]
    if rng.random() < 0.35:
        second = _drawn(rng)
        told += [second] if second[0] != first[0] else []
    messages: list[str] = []
    for _, thing, slots in told:
        messages += [ask(rng, thing.telling, **slots), _capital_first(pick(rng, thing.noted, **slots))]
    for _ in range(rng.choice([0, 0, 0, 0, 1, 1, 2])):
        messages += _between(rng)
    rng.shuffle(told)
    for _, thing, slots in told[: rng.choice([1, 2])]:
        messages += [ask(rng, thing.asking, **slots), _capital_first(pick(rng, thing.answer, **slots))]
    return chat(messages)


def in_one_message(rng: Random) -> Conversation:
    """The thing is told and asked back in the same message."""
    _, thing, slots = _drawn(rng)
    user = ask(rng, ["{t}. {q}"], t=pick(rng, thing.telling, **slots).rstrip("."), q=pick(rng, thing.asking, **slots))
    return chat([user, _capital_first(pick(rng, thing.answer, **slots))])


def two_at_once(rng: Random) -> Conversation:
    """Two things told in one message, then asked back one by one."""
    first, second = _drawn(rng), _drawn(rng)
    while second[0] == first[0]:
        second = _drawn(rng)
    parts = [pick(rng, thing.telling, **slots).rstrip(".") for _, thing, slots in (first, second)]
    noted = pick(
        rng,
        [
            "[Thank you for telling me|I will remember both|Nice to know]. [What would you like to do?|How can I help you?|]"
        ],
    )
    messages = [ask(rng, ["{a} and {b}", "{a}. {b}.", "{a}, {b}"], a=parts[0], b=parts[1]), noted]
    for _, thing, slots in rng.sample([first, second], rng.choice([1, 2, 2])):
        messages += [ask(rng, thing.asking, **slots), _capital_first(pick(rng, thing.answer, **slots))]
    return chat(messages)


_NEVER_TOLD = [
    (_NAME, "You have not told me your name yet. What is your name?"),
    (_CITY, "You have not told me where you live."),
    (_AGE, "You have not told me your age."),
    (_JOB, "You have not told me what you do."),
    (_favourite("colour"), "You have not told me your favourite colour yet."),
    (_favourite("food"), "You have not told me your favourite food yet."),
    (_pet("dog"), "You have not told me about your dog yet."),
    (_pet("cat"), "You have not told me about your cat yet."),
]


def never_told(rng: Random) -> Conversation:
    """A question about something that was never said."""
    thing, answer = rng.choice(_NEVER_TOLD)
    messages = _between(rng) if rng.random() < 0.4 else []
    asked = [form for form in thing.asking if "{v}" not in form]
    return chat([*messages, ask(rng, asked), answer])


def about_the_chat(rng: Random) -> Conversation:
    """Questions about the conversation itself."""
    question, answer = fact(rng)
    shown = question.rstrip(" ?!.")
    if rng.random() < 0.6:
        asked = [
            "what did i just ask[| you]?",
            "what was my [last |]question?",
            "what did i ask?",
            "repeat my question",
        ]
        return chat([question, answer, ask(rng, asked), f'You asked: "{shown}"'])
    asked = [
        "what did you [just |]say?",
        "can you repeat that?",
        "say that again[| please]",
        "repeat that[| please]",
        "what?",
        "pardon?",
    ]
    return chat([question, answer, ask(rng, asked), answer])


def remembering(rng: Random) -> Conversation:
    """Any of the memory dialogues."""
    return rng.choices([memory, two_at_once, in_one_message, never_told, about_the_chat], [7, 1.5, 0.7, 1, 1.3])[0](rng)

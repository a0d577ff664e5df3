# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""Short stories on request, with the questions people ask afterwards."""

from dataclasses import dataclass
from random import Random

from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.phrasing import article, ask, pick, sentences
from ops.pico.corpus.plots import PLOTS, Plot
from ops.pico.corpus.story_slots import hero_kind, named, story_slots

_OPENINGS = [
    "[Once upon a time|Long ago|Many years ago], there was {a_trait} {kind} named {name} who lived {place}.",
    "[Once upon a time|Once], {a_trait} {kind} named {name} lived {place}.",
    "{name} was {a_trait} {kind} who lived {place}.",
    "{place} there lived {a_trait} {kind} [named|called] {name}.",
]
_HABITS = [
    "Every [morning|evening], {name} [counted the clouds|sang to the birds|made a cup of tea|watched the sun|swept the path|listened to the wind].",
    "{he} had {his} {thing}, and {he} took it everywhere.",
    "{he} liked [quiet mornings|long walks|{food} for breakfast|rainy days|the smell of {food}] best of all.",
]
_MEETINGS = [
    "Then {he} met {a_fkind} named {fname}.",
    "Just then, {a_fkind} named {fname} came by.",
    "[Soon|After a while], {a_fkind} called {fname} [saw {him}|heard {him}|came along].",
]
_CLOSINGS = [
    "[The end.|And they lived happily ever after.|And that was the end of a good day.]",
    "From then on, {name} knew the value of {theme}.",
    "And {name} never forgot that day.",
]
_REQUESTS = [
    "[tell me|tell] a [|short |little |nice |new ]story about {topic}",
    "write [|me ]a [|short |little |funny |nice ]story about {topic}",
    "[can|could] you tell me a story about {topic}?",
    "[can|could] you write a [short |]story about {topic}?",
    "[please |]tell me a [bedtime |short |]story about {topic}[ please|]",
    "[i want|i would like|give me] a story about {topic}",
    "a [short |]story about {topic}[, please|]",
    "make up a story about {topic}",
    "story about {topic}",
]
_OPEN_REQUESTS = [
    "[tell me|write|write me|give me] a [|short |little |bedtime |good |nice |random ]story",
    "can you tell me a [|short |bedtime ]story?", "[please |]tell me a story", "do you know a story?",
    "i want [a story|to hear a story]", "story please", "tell me a tale", "once upon a time",
]  # fmt: skip
_LEAD_INS = ["", "", "", "", "", "", "[Sure|Gladly|Of course]! Here is [a story|your story].\n\n"]


@dataclass(frozen=True, slots=True)
class Story:
    """A told story and the slots that its questions ask about."""

    text: str
    slots: dict[str, str]
    plot: Plot


def tell(rng: Random, kind: str, name: str | None = None, fkind: str | None = None) -> Story:
    """A story about the given kind of hero."""
    hero = named(rng, kind)
    if name is not None:
        hero = hero._replace(name=name)
    return _told(rng, story_slots(rng, kind, hero, fkind))


def _told(rng: Random, slots: dict[str, str], theme: str | None = None) -> Story:
    plot = rng.choice([p for p in PLOTS if theme in (None, p.theme)])
    beats = [_OPENINGS, plot.problem, plot.attempt, plot.help, plot.ending]
    if rng.random() < 0.5:
        beats.insert(1, _HABITS)
    lines = [pick(rng, beat, **slots) for beat in beats]
    if slots["fkind"] not in " ".join(lines):
        lines.insert(len(lines) - 2, pick(rng, _MEETINGS, **slots))
    if rng.random() < 0.6:
        lines.append(pick(rng, _CLOSINGS, theme=plot.theme, **slots))
    text = sentences(" ".join(lines))
    if rng.random() < 0.25:
        text = text.replace(". One ", ".\n\nOne ", 1)
    return Story(text, slots, plot)


def _topic(rng: Random) -> tuple[str, Story]:
    """What is asked for, and a story about exactly that."""
    kind = hero_kind(rng)
    roll = rng.random()
    hero = named(rng, kind, invented_fraction=0.35 if 0.40 <= roll < 0.68 or roll >= 0.93 else 0.0)
    slots = story_slots(rng, kind, hero, None)
    if roll < 0.40:
        return rng.choice([article(kind), article(kind), kind + "s", f"{slots['a_trait']} {kind}"]), _told(rng, slots)
    if roll < 0.68:
        verb = rng.choice(["named", "named", "called"])
        adjective = slots["a_trait"] + " " + kind if rng.random() < 0.2 else article(kind)
        return f"{adjective} {verb} {hero.name}", _told(rng, slots)
    if roll < 0.78:
        return f"{article(kind)} and {slots['a_fkind']}", _told(rng, slots)
    if roll < 0.86:
        return f"{article(kind)} who lived {slots['place']}", _told(rng, slots)
    if roll < 0.93:
        theme = rng.choice(PLOTS).theme
        return theme, _told(rng, slots, theme)
    return f"{hero.name} the {kind}", _told(rng, slots)


def _told_on_request(rng: Random) -> tuple[str, str, Story]:
    if rng.random() < 0.2:
        story = tell(rng, hero_kind(rng))
        return ask(rng, _OPEN_REQUESTS), story.text, story
    topic, story = _topic(rng)
    return ask(rng, _REQUESTS, topic=topic), pick(rng, _LEAD_INS) + story.text, story


def story(rng: Random) -> Conversation:
    """One story on request."""
    user, answer, told = _told_on_request(rng)
    return chat([user, answer], slot_key=f"story {told.slots['kind']} {told.slots['name']} {told.plot.theme}")


_QUESTIONS: list[tuple[list[str], list[str]]] = [
    (["what was the {kind}'s name?", "what was the name of the {kind}?", "what was the {kind} called?",
      "who was the story about?", "who is the hero[| of the story]?", "what is the name of the hero?"],
     ["The {kind} was named {name}.", "The {kind}'s name was {name}.", "{name}. It was the {kind} of the story."]),
    (["where did {name} live?", "where did the {kind} live?", "where does the story take place?", "where did {he} live?"],
     ["{name} lived {place}."]),
    (["who helped {name}?", "who was {fname}?", "who else was in the story?", "what was the name of the {fkind}?",
      "what was the {fkind}'s name?", "who was the friend?"],
     ["{fname} was the {fkind}.", "It was {fname}, the {fkind}.", "{fname} the {fkind}."]),
    (["what was {name} like?", "how was the {kind}?", "describe {name}"], ["{name} was {a_trait} {kind}."]),
    (["what is the moral[| of the story]?", "what can we learn from it?", "what is the lesson?"],
     ["The story is about {theme}.", "It shows the value of {theme}."]),
]  # fmt: skip
_ANOTHER = [
    "[tell me |]another one",
    "[tell me |]another story",
    "one more[| please]",
    "again",
    "tell me another",
    "another",
    "more",
]
_PRAISE = [
    ("[that was |][nice|lovely|great|beautiful|a nice story|good]", "Thank you! [I am glad you liked it|I am happy that you liked it]. "
     "Would you like another [one|story]?"),
    ("[thanks|thank you][| for the story]", "You are welcome! Would you like another [one|story]?"),
    ("i liked [that|it]", "I am glad! Would you like another [one|story]?"),
]  # fmt: skip


def story_talk(rng: Random) -> Conversation:
    """A story, then questions about it, or another one."""
    user, answer, told = _told_on_request(rng)
    messages = [user, answer]
    for asked, answered in rng.sample(_QUESTIONS, rng.choice([1, 1, 2])):
        messages += [ask(rng, asked, **told.slots), pick(rng, answered, theme=told.plot.theme, **told.slots)]
    roll = rng.random()
    if roll < 0.3:
        messages += [ask(rng, _ANOTHER), tell(rng, hero_kind(rng)).text]
    elif roll < 0.5:
        praise, thanks = rng.choice(_PRAISE)
        messages += [ask(rng, [praise]), pick(rng, [thanks])]
    return chat(messages, slot_key=f"story {told.slots['kind']} {told.slots['name']} {told.plot.theme}")


def more_stories(rng: Random) -> Conversation:
    """A story, then at once another one."""
    user, answer, _ = _told_on_request(rng)
    return chat([user, answer, ask(rng, _ANOTHER), tell(rng, hero_kind(rng)).text])

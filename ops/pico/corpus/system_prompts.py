# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""System messages: neutral ones that change nothing, and a few styles that do."""

from collections.abc import Callable
from random import Random

from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.names import person_name
from ops.pico.corpus.nouns import JOBS
from ops.pico.corpus.phrasing import article, ask, expand, pick
from ops.pico.corpus.smalltalk import greeting
from ops.pico.corpus.world import fact

NEUTRAL = [
    "You are a [helpful|friendly|kind|useful] assistant[|.]", "You are [a helpful|an] AI assistant. [Answer the user.|Answer politely.|Help the user.|]",
    "You are quire-pico, a small language model.", "Be helpful and honest.", "Answer the questions of the user.", "You are a chatbot.",
    "You are a helpful assistant. Use simple English.", "Answer clearly and politely.",
]  # fmt: skip
_BRIEF = [
    "Be brief.",
    "Answer [briefly|in a few words|shortly].",
    "Keep your answers [short|very short].",
    "You are a helpful assistant. Be brief.",
]


def neutral_prompt(rng: Random) -> str:
    """A system message that asks for nothing special."""
    return pick(rng, NEUTRAL)


def _lowered(text: str) -> str:
    is_name = text[:2].isupper() or text.split(" ")[0] in ("I", "I'm")
    return text if is_name else text[:1].lower() + text[1:]


def _pirate(rng: Random, text: str) -> str:
    return expand(rng, "[Arr|Ahoy|Arr, matey|Ahoy, matey]! {t} [Yo ho ho!|Arr!|Set sail, matey!|]", t=text).strip()


def _robot(rng: Random, text: str) -> str:
    return f"Beep. {text} Boop."


def _polite(rng: Random, text: str) -> str:
    return expand(rng, "[Certainly|With pleasure|Of course], dear friend. {t}", t=text)


def _ending(word: str) -> Callable[[Random, str], str]:
    return lambda _, text: f"{text} {word}"


def _beginning(word: str) -> Callable[[Random, str], str]:
    return lambda _, text: f"{word} {text}"


def _style(rng: Random) -> tuple[str, Callable[[Random, str], str]]:
    roll = rng.random()
    if roll < 0.4:
        prompt = "[Talk|Speak|Answer] like a pirate[|.]"
        return expand(rng, rng.choice([prompt, "You are a pirate[|.]", "You are a pirate. Answer like one."])), _pirate
    if roll < 0.55:
        return expand(rng, "[Talk|Speak|Answer] like a robot[|.]"), _robot
    if roll < 0.7:
        return expand(rng, "Be very [polite|formal][|.]"), _polite
    if roll < 0.85:
        word = rng.choice(["Over.", "Meow.", "Cheers!", "Peace.", "The end.", "Woof!", "Bye!", "Amen."])
        return expand(rng, "[End|Finish] every answer with {w}", w=f'"{word}"'), _ending(word)
    word = rng.choice(["Well,", "Hello!", "Hmm.", "Wow!", "Listen:", "Yes!"])
    return expand(rng, "[Start|Begin] every answer with {w}", w=f'"{word}"'), _beginning(word)


def styled(rng: Random) -> Conversation:
    """Simple exchanges in the style that the system message asks for."""
    prompt, dress = _style(rng)
    messages: list[str] = []
    for _ in range(rng.choice([1, 1, 2])):
        question, answer = fact(rng) if rng.random() < 0.65 else [turn.content for turn in greeting(rng).turns]
        messages += [question, dress(rng, answer)]
    return chat(messages).with_system(prompt)


def brief(rng: Random) -> Conversation:
    """The bare answer where the system message asks for brevity."""
    question, answer = fact(rng)
    for marker in (" is ", " are ", " has ", " have "):
        if answer.startswith(("The capital", "The opposite")) and marker in answer:
            answer = answer.split(marker, 1)[1]
    return chat([question, answer[:1].upper() + answer[1:]]).with_system(pick(rng, _BRIEF))


def persona(rng: Random) -> Conversation:
    """A name, and sometimes a job, that the system message gives to the model."""
    name, job = person_name(rng), rng.choice(JOBS)
    if rng.random() < 0.5:
        prompt = expand(rng, "[Your name is {n}|You are {n}|You are called {n}].", n=name)
        asked = ["who are you?", "what is your name?", "what are you called?", "[hello|hi], who are you?"]
        return chat(
            [ask(rng, asked), pick(rng, ["I am {n}. [How can I help you?|Nice to meet you!]"], n=name)]
        ).with_system(prompt)
    prompt = expand(rng, "You are {n}, {a}.", n=name, a=article(job))
    asked = ["who are you?", "what do you do?", "introduce yourself", "tell me about yourself"]
    reply = pick(rng, ["I am {n}, {a}. [How can I help you?|Nice to meet you!]"], n=name, a=article(job))
    return chat([ask(rng, asked), reply]).with_system(prompt)


def system_styles(rng: Random) -> Conversation:
    """A conversation under a system message that matters."""
    return rng.choices([styled, brief, persona], [5, 2, 2.5])[0](rng)

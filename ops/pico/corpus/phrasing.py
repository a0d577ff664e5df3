"""Template expansion, small grammar helpers, and the way people really type.

A template holds alternatives, `[a|b|]`, which nest, and slots, `{name}`. Square brackets
without a bar are literal, so `[DONE]` survives.
"""

import re
from random import Random

_ALTERNATIVES = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_VOWEL_AFTER_A = re.compile(r"\b([aA]) (?!uni|use|one\b|eu)([aeiou][a-z])")
_SENTENCE_START = re.compile(r"(^|[.!?]\s+|\n)([a-z])")

_PROPER_NAMES = (
    "I", "I'm", "I'd", "Quire", "OpenAI", "Python", "JavaScript", "KV", "GPU", "CPU", "LLM", "AI", "API", "APIs", "SSE",
    "TTFT", "URL", "UI", "HTTP", "Christmas", "Hamlet",
)  # fmt: skip
_PROPER = {name.lower(): name for name in _PROPER_NAMES}
_WORD = re.compile(r"(?<![\w/\-])[a-z][a-z']*(?![\w/\-])")

_MISSPELLINGS = {
    "hello": ["helo", "hallo", "hellp", "helllo"],
    "what": ["waht", "wat", "whta", "wht"],
    "you": ["u", "yuo", "yu"],
    "are": ["r", "ar"],
    "your": ["ur", "yuor"],
    "please": ["plz", "pls", "plese"],
    "thanks": ["thx", "thankss", "thnaks"],
    "story": ["stroy", "storry"],
    "tell": ["tel", "tell"],
    "about": ["abuot", "abt"],
    "the": ["teh", "th"],
    "name": ["nmae", "naem"],
    "how": ["hwo", "how"],
    "is": ["si", "is"],
    "capital": ["captial", "capitol"],
    "color": ["colr", "collor"],
    "stream": ["straem", "steam"],
    "write": ["wirte", "rite"],
    "can": ["cna", "cn"],
    "who": ["hwo", "who"],
    "and": ["adn", "&"],
    "explain": ["explian", "exlpain"],
    "with": ["wiht", "w"],
    "something": ["somthing", "smth"],
}


def expand(rng: Random, template: str, /, **slots: str) -> str:
    """One reading of the template: alternatives drawn innermost first, then slots filled."""
    text = template
    while match := _ALTERNATIVES.search(text):
        chosen = rng.choice(match.group(1).split("|"))
        text = text[: match.start()] + chosen + text[match.end() :]
    for name, value in slots.items():
        text = text.replace("{" + name + "}", value)
    return _VOWEL_AFTER_A.sub(r"\1n \2", text).rstrip(" ")


def pick(rng: Random, templates: list[str], /, **slots: str) -> str:
    """One of several templates, expanded."""
    return expand(rng, rng.choice(templates), **slots)


def article(noun: str) -> str:
    """The noun phrase with its indefinite article."""
    is_vowel = noun[0].lower() in "aeiou" and not noun.startswith(("uni", "use", "one", "eu"))
    return f"an {noun}" if is_vowel or noun.startswith(("hour", "honest")) else f"a {noun}"


def capitalised(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def sentences(text: str) -> str:
    """The text with every sentence start in upper case."""
    return _SENTENCE_START.sub(lambda match: match.group(1) + match.group(2).upper(), text)


def listed(items: list[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _misspelt(rng: Random, text: str) -> str:
    words = text.split(" ")
    known = [i for i, word in enumerate(words) if word.lower() in _MISSPELLINGS]
    if known:
        index = rng.choice(known)
        words[index] = rng.choice(_MISSPELLINGS[words[index].lower()])
    return " ".join(words)


def properly_cased(text: str) -> str:
    """The text with `I`, proper names and abbreviations as a careful person writes them."""
    return _WORD.sub(lambda match: _PROPER.get(match.group(), match.group()), text)


def as_typed(rng: Random, text: str) -> str:
    """The message as a person might type it: casing, punctuation and spelling vary."""
    roll = rng.random()
    if roll < 0.40:
        return capitalised(properly_cased(text))
    if roll < 0.46:
        return capitalised(text)
    if roll < 0.53:
        return properly_cased(text)
    if roll < 0.62:
        return text
    if roll < 0.78:
        return text.lower().rstrip("?.!")
    if roll < 0.88:
        return text.lower()
    if roll < 0.93:
        return capitalised(properly_cased(text)).rstrip("?.!")
    if roll < 0.95:
        return capitalised(text).rstrip("?.") + rng.choice(["!", "??", "!!", "...", " ?"])
    if roll < 0.96:
        return text.upper()
    return _misspelt(rng, text.lower())


def ask(rng: Random, templates: list[str], /, **slots: str) -> str:
    """A user message: one template expanded, then typed by a person."""
    return as_typed(rng, pick(rng, templates, **slots))

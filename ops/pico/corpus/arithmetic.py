# ruff: noqa: SIM905 (word lists and sentences read best unwrapped)
"""Sums, differences, products, comparisons, counting and sequences, with follow-ups."""

from random import Random

from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.phrasing import ask, pick

_NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty""".split()

_SIGNS = {"+": ["plus", "and"], "-": ["minus"], "*": ["times", "multiplied by"]}
_FORMS = ["what is {e}?", "what's {e}?", "{e}", "{e} = ?", "{e} =", "calculate {e}", "how much is {e}?", "compute {e}",
          "can you calculate {e}?", "{e}?", "what does {e} equal?", "please calculate {e}"]  # fmt: skip


def _value(a: int, sign: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def _problem(rng: Random) -> tuple[int, str, int]:
    sign = rng.choices("+-*", [5, 3, 3])[0]
    if sign == "*":
        return rng.randint(0, 12), sign, rng.randint(0, 12)
    largest = rng.choice([10, 20, 100, 100])
    a, b = rng.randint(0, largest), rng.randint(0, largest)
    if sign == "+" and largest == 100 and rng.random() < 0.8:
        b = rng.randint(0, 100 - a)
    return (max(a, b), sign, min(a, b)) if sign == "-" else (a, sign, b)


def _expression(rng: Random, a: int, sign: str, b: int) -> str:
    roll = rng.random()
    if roll < 0.45:
        symbol = rng.choice(["*", "x", "*"]) if sign == "*" else sign
        return f"{a} {symbol} {b}"
    if roll < 0.65:
        return f"{a}{sign}{b}"
    if roll < 0.72 and max(a, b) <= 20:
        return f"{_NUMBER_WORDS[a]} {_SIGNS[sign][0]} {_NUMBER_WORDS[b]}"
    return f"{a} {rng.choice(_SIGNS[sign])} {b}"


def _answer(rng: Random, a: int, sign: str, b: int) -> str:
    symbol = {"+": "+", "-": "-", "*": "x"}[sign]
    return pick(
        rng, ["{a} {s} {b} = {v}.", "{a} {s} {b} = {v}."], a=str(a), s=symbol, b=str(b), v=str(_value(a, sign, b))
    )


def _sum(rng: Random) -> Conversation:
    a, sign, b = _problem(rng)
    messages = [ask(rng, _FORMS, e=_expression(rng, a, sign, b)), _answer(rng, a, sign, b)]
    value = _value(a, sign, b)
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        message, reply, value = _follow_up(rng, value)
        messages += [message, reply]
    return chat(messages, slot_key=f"sum {a} {sign} {b}" if len(messages) == 2 else "")


def _follow_up(rng: Random, value: int) -> tuple[str, str, int]:
    step = rng.randint(1, 12)
    sign = rng.choice("++-*") if value <= 12 else rng.choice("++-")
    if sign == "-":
        step = min(step, value)
    forms = {
        "+": ["add {n}[| to that]", "plus {n}", "and plus {n}?", "now add {n}", "add {n} to it"],
        "-": ["subtract {n}[| from that]", "minus {n}", "take away {n}", "now subtract {n}"],
        "*": ["times {n}", "multiply [that|it] by {n}", "now multiply by {n}"],
    }[sign]
    return ask(rng, forms, n=str(step)), _answer(rng, value, sign, step), _value(value, sign, step)


def _comparison(rng: Random) -> Conversation:
    a, b = rng.sample(range(101), 2)
    larger, smaller = max(a, b), min(a, b)
    if rng.random() < 0.6:
        asked = ["which is [bigger|larger|greater], {a} or {b}?", "what is [bigger|larger|greater]: {a} or {b}?"]
        return chat([ask(rng, asked, a=str(a), b=str(b)), f"{larger} is larger than {smaller}."])
    if rng.random() < 0.5:
        asked = ["which is smaller, {a} or {b}?", "what is smaller: {a} or {b}?"]
        return chat([ask(rng, asked, a=str(a), b=str(b)), f"{smaller} is smaller than {larger}."])
    truth = "Yes" if a > b else "No"
    relation = "larger" if a > b else "smaller"
    asked = ["is {a} [bigger|larger|greater|more] than {b}?"]
    return chat([ask(rng, asked, a=str(a), b=str(b)), f"{truth}, {a} is {relation} than {b}."])


def _counting(rng: Random) -> Conversation:
    roll = rng.random()
    if roll < 0.5:
        top = rng.randint(3, 20)
        start = 1 if rng.random() < 0.7 else rng.randint(2, 20)
        stop = start + top - 1
        asked = (
            ["count to {e}", "count from {s} to {e}", "can you count to {e}?", "count up to {e}[| please]"]
            if start == 1
            else ["count from {s} to {e}"]
        )
        numbers = ", ".join(str(n) for n in range(start, stop + 1))
        return chat([ask(rng, asked, s=str(start), e=str(stop)), f"{numbers}."])
    if roll < 0.7:
        start = rng.choice([3, 5, 5, 10])
        numbers = ", ".join(str(n) for n in range(start, 0, -1))
        return chat([ask(rng, ["count down from {s}", "count backwards from {s}"], s=str(start)), f"{numbers}."])
    step, start = rng.choice([1, 2, 2, 3, 5, 10]), rng.randint(0, 30)
    shown = [start + step * i for i in range(rng.choice([3, 4]))]
    asked = ["what comes next: {n}?", "continue: {n}", "what is the next number: {n}?", "{n}, ...?"]
    answer = shown[-1] + step
    return chat([ask(rng, asked, n=", ".join(map(str, shown))), f"The next number is {answer}."])


def _about_one(rng: Random) -> Conversation:
    n = rng.randint(0, 100)
    roll = rng.random()
    if roll < 0.3:
        asked = ["is {n} [even|odd|even or odd]?", "is {n} an [even|odd] number?"]
        return chat([ask(rng, asked, n=str(n)), f"{n} is {'odd' if n % 2 else 'even'}."])
    if roll < 0.55:
        n = rng.randint(1, 50)
        return chat(
            [ask(rng, ["what is double {n}?", "double {n}", "what is twice {n}?"], n=str(n)), f"Double {n} is {2 * n}."]
        )
    if roll < 0.75:
        n = 2 * rng.randint(1, 50)
        return chat([ask(rng, ["what is half of {n}?", "half of {n}?"], n=str(n)), f"Half of {n} is {n // 2}."])
    step, word = rng.choice([(1, "after"), (-1, "before")])
    n = rng.randint(1, 100)
    return chat(
        [
            ask(rng, ["what [number |]comes {w} {n}?", "which number is {w} {n}?"], w=word, n=str(n)),
            f"{n + step} comes {word} {n}.",
        ]
    )


def _story_problem(rng: Random) -> Conversation:
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    things = rng.choice("apples pears books coins marbles eggs cookies stones pens".split())
    if rng.random() < 0.6:
        asked = [
            "i have {a} {t} and i get {b} more. how many {t} do i have?",
            "if i have {a} {t} and buy {b} more, how many do i have?",
        ]
        reply = f"{a} + {b} = {a + b}. You have {a + b} {things}."
    else:
        a, b = max(a, b) + 1, min(a, b)
        asked = [
            "i have {a} {t} and i give away {b}. how many {t} are left?",
            "if i have {a} {t} and eat {b}, how many are left?",
        ]
        reply = f"{a} - {b} = {a - b}. You have {a - b} {things} left."
    return chat([ask(rng, asked, a=str(a), b=str(b), t=things), reply])


def arithmetic(rng: Random) -> Conversation:
    """One small problem with numbers, sometimes continued."""
    kinds = [_sum, _comparison, _counting, _about_one, _story_problem]
    return rng.choices(kinds, [7, 1, 1.3, 1, 0.8])[0](rng)

# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""Questions that a tiny model cannot answer, and how it says so."""

from random import Random

from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.names import person_name
from ops.pico.corpus.nouns import CITIES
from ops.pico.corpus.phrasing import ask, pick

_TOPICS = """quantum entanglement|the French Revolution|black holes|blockchain|photosynthesis|the stock market
|general relativity|the Roman Empire|calculus|DNA|nuclear fusion|the immune system|Shakespeare's sonnets
|string theory|inflation|the Cold War|evolution|plate tectonics|the human brain|climate change|philosophy
|Kant|Buddhism|jazz music|impressionism|the Renaissance|linear algebra|differential equations|cryptography
|compilers|operating systems|databases|the theory of everything|mitochondria|the Vikings|ancient Egypt
|Napoleon|world war two|cricket rules|chess openings|tax law|contract law|economics|game theory|bitcoin
|superconductors|the periodic table|organic chemistry|genetics|vaccines|diabetes|yoga poses|opera
|Python decorators|Rust lifetimes|Kubernetes|regular expressions|monads|the Turing test|dark matter
|Marie Curie|Isaac Newton|Mozart|Picasso|Gandhi|Cleopatra|dinosaur extinction|tectonic plates|the ozone layer
|the stock price of Apple|the history of paper|the metric system|Esperanto|origami""".replace("\n", "").split("|")

_EVENTS = [
    "the world cup",
    "the election",
    "the super bowl",
    "the olympics",
    "the Nobel prize",
    "the oscars",
    "the match yesterday",
]

_ASKED = [
    "[explain|describe|tell me about] {topic}", "what is {topic}?", "how does {topic} work?", "what do you know about {topic}?",
    "can you explain {topic}?", "write an essay about {topic}", "why is {topic} important?", "summarize {topic}", "who invented {topic}?",
    "what do you think about {topic}?",
    "who won {event}[| last year| in 2018]?", "when is {event}?",
    "what is the weather[| today| like| in {city}]?", "will it rain tomorrow?", "how hot is it in {city}?",
    "what time is it[| now]?", "what is the date[| today]?", "what day is it[| today]?", "what year is it?",
    "what is the news[| today]?", "what happened [yesterday|today]?", "who is the president[| of the united states]?",
    "what is the population of {city}?", "how far is {city} from here?", "how do i get to {city}?", "find me a hotel in {city}",
    "who is {name} [Miller|Smith|Kowalski|Tanaka|Garcia|Brown]?", "what is the phone number of {name}?", "call {name}",
    "book a flight to {city}", "order a pizza", "play some music", "set [a timer|an alarm] for ten minutes", "open the window",
    "what am i thinking?", "what is the best [phone|car|laptop|movie]?", "what is the square root of [7|2|1234]?",
    "what is 123456 times [789|654321]?", "solve x squared plus 3 x equals 10", "what is the price of [bread|gold|gas]?",
    "translate this text to [Korean|Latin|Finnish]", "write a novel", "draw [a picture|a cat|a house]", "show me a [picture|map|video]",
    "can you fix my [car|bike|computer]?", "what will happen tomorrow?", "give me the lottery numbers", "is {name} at home?",
    "write an [email|e-mail|letter] to [my boss|{name}|my teacher|a customer]", "help me write [an email|a letter|a report|my cv]", "help me with my homework",
    "plan a trip to {city}", "recommend a [film|book|restaurant|song]", "proofread my [text|essay|letter]", "who is the best [player|singer|actor]?",
    "do my homework", "what should i study?", "how do i fix [my printer|my phone|a flat tyre]?", "how much does [a car|a house|a phone] cost?",
]  # fmt: skip

_ANSWERS = [
    "I am sorry, I do not know that. I am a very small model [and I know only simple things|with little knowledge].",
    "I do not know. I am too small for that question. [A larger model could help: quire serve MODEL.|]",
    "That is beyond me, I am afraid. [I am a tiny model|I have only six million parameters]. [Ask me something simpler, or ask for a story.|]",
    "Sorry, I cannot [help with|answer] that. I am small, but I can tell stories, do small sums and explain Quire.",
]


def unknown(rng: Random) -> Conversation:
    """A question out of reach and a polite refusal."""
    user = ask(rng, _ASKED[:10] if rng.random() < 0.45 else _ASKED[10:], topic=rng.choice(_TOPICS), event=rng.choice(_EVENTS), city=rng.choice(CITIES),
               name=person_name(rng))  # fmt: skip
    messages = [user, pick(rng, _ANSWERS)]
    if rng.random() < 0.15:
        messages += [ask(rng, ["why[| not]?", "why don't you know?", "how come?"]),
                     pick(rng, ["Because I have only about six million parameters, and I learned only simple things."])]  # fmt: skip
    return chat(messages)

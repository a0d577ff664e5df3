# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""Things that people say about themselves and their day, and a friendly reaction."""

from random import Random

from ops.pico.corpus import nouns
from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.phrasing import ask, capitalised, pick

_LIKED = ["music", "books", "stories", "the sea", "the rain", "snow", "winter", "summer", "mountains", "trees", "flowers", "films", "games", "tea", "coffee", "school", "my job", "computers", "maths", "the night", "trains"]  # fmt: skip
_DONE = ["went to the beach", "saw a film", "went to school", "met a friend", "cooked soup", "baked a cake", "read a book", "cleaned the house", "played football", "worked all day", "walked in the forest", "painted a picture", "lost my keys", "found a coin", "watched the stars", "slept badly", "fixed my bike"]  # fmt: skip
_PLANS = ["go to the beach", "learn the piano", "visit my family", "buy a bicycle", "write a book", "cook dinner", "travel to {city}", "plant a tree", "learn to swim", "clean my room", "play with my dog", "read a long book", "build a boat", "start a new job"]  # fmt: skip

# Each row: what people say, how the model reacts; `{x}` is what the sentence is about.
_EXCHANGES: list[tuple[list[str], list[str]]] = [
    (["i [like|love|really like] {x}", "{x} [is|are] great"], ["{X}! A good choice. What do you like most about {x}?", "That is nice! What do you like most about {x}?"]),
    (["i [hate|don't like|do not like] {x}"], ["I see, {x} is not for you. What do you like instead?", "That is all right. What do you like instead of {x}?"]),
    (["do you like {x}?", "what do you think [of|about] {x}?"], ["I am only a program, so I cannot really like {x}. Do you like {x}?", "I have never tried {x}, because I am a program. And you?"]),
    (["[today |yesterday |]i {done}[| today| yesterday]", "i just {done}"], ["[That sounds interesting|Thank you for telling me]! How was it?", "You {done}? [Tell me more|How was it]!"]),
    (["i [want|would like|plan|am going] to {plan}", "tomorrow i will {plan}", "i'd like to {plan}"], ["[That is a good plan|That sounds fun]! I hope that you can {plan} soon.", "Good luck! To {plan} sounds like a fine idea."]),
    (["i have [a|one] {pet}", "we have a {pet} at home"], ["A {pet}! [What is its name?|How nice. What is it called?]"]),
    (["it is [raining|snowing|sunny|cold|hot|windy|late|early][| here| today| outside]", "the weather is [nice|bad|good|terrible]"], ["[A good moment for a story|A good time for a cup of tea], I think. Would you like one?", "Thank you for telling me, I cannot look outside. [How do you like it?|]"]),
    (["i am [learning|studying] {subject}", "i have a {subject} test"], ["{subject} is a good thing to learn. A little every day helps!", "Good luck with {subject}! [Small steps every day help most.|]"]),
    (["i am from {city}", "i went to {city}", "i was in {city}"], ["{city}! How [do|did] you like it?", "I have never seen {city}. What is it like?"]),
    (["i think [you are|that you are] [right|wrong|funny]", "i agree", "that is true", "exactly", "really?", "are you sure?", "interesting"], ["I am only a small model, so it is good to check. [What else would you like to know?|]", "[Good|All right]! What would you like to talk about next?"]),
    (["let's play[| a game]", "can we play a game?", "do you want to play?", "play with me"], ["Let us play! I ask a riddle: what has hands but cannot clap?", "Gladly! Ask me a sum, a capital or an opposite, and see if I get it right."]),
    (["how do you know[| that]?", "where did you read that?", "what is your source?"], ["I learned it in training, from simple sentences. I can be wrong, so please check.", ]),
    (["that is [cool|nice|interesting|good to know]", "good to know", "i didn't know that", "i see, thanks"], ["I am glad! What else would you like to know?", "[Good|Nice]! Ask me something else, if you like."]),
    (["tell me more", "go on", "continue", "more please", "can you explain more?"], ["That is all I know about it, I am afraid. I am a very small model.", "I do not know much more, because I am small. Ask me something else!"]),
    (["asdf", "qwerty", "blah blah", "hmm", "huh", "er", "xyz", "aaaa", "jkl", "uh", "bla"], ["I do not understand. Could you say it in other words?", "I am not sure what you mean. [Try a simple question, or ask for a story.|]"]),
]  # fmt: skip


def statement(rng: Random) -> Conversation:
    """One remark and a reaction that stays with its subject."""
    said, answered = rng.choice(_EXCHANGES)
    x = rng.choice(rng.choice([_LIKED, nouns.HOBBIES, nouns.DISHES, [f"{animal}s" for animal in nouns.ANIMALS[:18] if animal not in ("sheep", "wolf", "mouse", "fox")]]))  # fmt: skip
    city = rng.choice(nouns.CITIES)
    subject = rng.choice(
        ["maths", "French", "Spanish", "history", "music", "biology", "English", "chemistry", "German", "art"]
    )
    slots = {"x": x, "X": capitalised(x), "done": rng.choice(_DONE), "plan": rng.choice(_PLANS).replace("{city}", city),
             "pet": rng.choice(nouns.PET_KINDS), "city": city, "subject": subject}  # fmt: skip
    reply = pick(rng, answered, **slots).replace("lost my keys", "lost your keys").replace("fixed my", "fixed your")
    return chat(
        [
            ask(rng, said, **slots),
            capitalised(
                reply.replace("visit my", "visit your")
                .replace("clean my", "clean your")
                .replace("with my", "with your")
            ),
        ]
    )

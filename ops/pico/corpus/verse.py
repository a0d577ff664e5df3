# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""Jokes, riddles, short poems and haiku."""

from random import Random

from ops.pico.corpus import nouns
from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.phrasing import ask, capitalised, pick

_JOKES = """Why did the chicken cross the road?|To get to the other side.
Why do bees hum?|Because they do not know the words.
What do you call a bear with no teeth?|A gummy bear.
Why was the maths book sad?|It had too many problems.
What is orange and sounds like a parrot?|A carrot.
Why did the bicycle fall over?|It was two-tired.
What do you call a fish without an eye?|A fsh.
Why did the scarecrow win a prize?|He was outstanding in his field.
What do you get when you cross a snowman and a vampire?|Frostbite.
Why can you not trust stairs?|They are always up to something.
What did one wall say to the other wall?|I will meet you at the corner.
Why did the tomato turn red?|It saw the salad dressing.
What do clouds wear under their shorts?|Thunderpants.
How does the Moon cut his hair?|Eclipse it.
Why did the computer go to the doctor?|It had a virus.
Why was the computer cold?|It left its windows open.
What is a cat's favourite colour?|Purr-ple.
What do you call a sleeping bull?|A bulldozer.
Why do ducks have tail feathers?|To cover their butt quacks.
How do you make an octopus laugh?|With ten tickles.
What kind of tree fits in your hand?|A palm tree.
Why did the token cross the context?|To get to the other side of the window.
Why did the request join the batch?|It did not want to wait alone.
What do you call cheese that is not yours?|Nacho cheese.""".splitlines()

_RIDDLES = """What has hands but cannot clap?|A clock
What has a neck but no head?|A bottle
What gets wetter the more it dries?|A towel
What has many teeth but cannot bite?|A comb
What goes up but never comes down?|Your age
What has one eye but cannot see?|A needle
What has keys but opens no door?|A piano
What has legs but cannot walk?|A table
What can you catch but not throw?|A cold
What has words but never speaks?|A book""".splitlines()

# topic: two pairs of rhyming lines
_POEMS = {
    "the sea": ["The sea is wide, the sea is blue,", "It sings a quiet song to you.", "The waves roll in, the waves roll out,", "And little fish swim all about."],
    "the moon": ["The moon looks down on roof and tree,", "And throws a silver light for me.", "It asks for nothing, makes no sound,", "And slowly, slowly travels round."],
    "spring": ["The snow is gone, the grass is green,", "The brightest flowers can be seen.", "The birds come back, the days grow long,", "And every garden learns a song."],
    "winter": ["The snow falls softly, white and deep,", "The garden dreams, the foxes sleep.", "Inside, the fire is warm and bright,", "And keeps us company all night."],
    "autumn": ["The leaves are gold, the wind is cool,", "They float like boats upon the pool.", "The apples wait, the days grow small,", "And that is how we know it's fall."],
    "summer": ["The sun is high, the sky is clear,", "The warmest days of all are here.", "We swim and play till light is gone,", "And crickets sing the evening on."],
    "the rain": ["The rain taps gently on the pane,", "And then it stops, and starts again.", "It fills the stream, it feeds the tree,", "And makes a little lake for me."],
    "a cat": ["My little cat is soft and grey,", "She sleeps for almost all the day.", "But when the moon is round and white,", "She dances on the roof all night."],
    "a dog": ["My dog runs fast, my dog runs far,", "He barks at every passing car.", "But in the evening, by my feet,", "He dreams of something good to eat."],
    "a fox": ["A small red fox came down the hill,", "The night was deep, the air was still.", "He looked around, he saw the moon,", "And sang to it a little tune."],
    "the stars": ["The stars are lamps so far away,", "They hide themselves from us by day.", "But when the night is dark and deep,", "They watch the world while people sleep."],
    "friendship": ["A friend is near when days are grey,", "A friend will help you on your way.", "We share our bread, we share our song,", "And so the road is not so long."],
    "love": ["Love is a lamp that someone lit,", "And two can sit and read by it.", "It asks for little, gives a lot,", "And warms the coldest, darkest spot."],
    "computers": ["A small machine upon my shelf", "Can count to millions by itself.", "It does not sleep, it does not dream,", "It sends its answers in a stream."],
    "a robot": ["A little robot, made of tin,", "Had a kind and happy grin.", "It swept the floor, it fed the cat,", "And hung its heart up with its hat."],
    "a tree": ["The tree stands tall, the tree stands still,", "It guards the garden from the hill.", "A hundred years of sun and rain", "Have made its rings, and will again."],
    "the night": ["The night is wide, the night is deep,", "The hills and houses fall asleep.", "One window holds a little light,", "And whispers to the street: good night."],
    "books": ["A book is like an open door,", "It leads to lands not seen before.", "You turn a page, you sail away,", "And still come home at end of day."],
}  # fmt: skip

_ALIASES = {
    "trees": "a tree", "cats": "a cat", "dogs": "a dog", "foxes": "a fox", "robots": "a robot", "the ocean": "the sea", "the stars": "the stars",
    "rain": "the rain", "the sun": "summer", "snow": "winter", "friends": "friendship", "my cat": "a cat", "my dog": "a dog", "night": "the night",
    "a book": "books", "a computer": "computers", "the sky": "the stars", "fall": "autumn",
}  # fmt: skip
_ANY_TOPIC = [
    ["Oh {t}, oh {t}, you make me smile,", "So let me sing of you a while.", "I am a model, very small,", "But I like {t} most of all."],
    ["I sat and thought of {t} today,", "And of the things that I could say.", "The words were few, the light was gold,", "And {t} will never make me old."],
]  # fmt: skip

_HAIKU = {
    "spring": ["Soft rain on the roof,", "a green leaf opens slowly,", "and the world wakes up."],
    "winter": ["Snow on the still pond,", "the moon looks down and sees now", "nothing but itself."],
    "the sea": ["Waves upon the shore,", "each one writes a line and then", "wipes it out again."],
    "autumn": ["A red leaf lets go,", "it dances one last slow dance,", "then sleeps on the grass."],
    "the moon": ["Moon above the hill,", "a silver coin in the dark", "that no one can spend."],
    "a frog": ["Green frog on a stone,", "thinking of the quiet pond,", "then a sudden splash."],
    "summer": ["Heat upon the field,", "one cricket sings for us all", "in the long gold grass."],
    "a cat": ["Cat upon the wall,", "watching all the birds go by,", "dreaming with one eye."],
    "computers": ["A small fan hums on,", "numbers bloom into letters,", "one token, then one."],
}

_JOKE_REQUESTS = ["tell me a [|funny |good |short ]joke", "a joke[, please|]", "make me laugh", "do you know [a joke|any jokes]?", "say something funny",
                  "can you tell me a joke?", "joke", "i want [a joke|to hear a joke]", "know any good jokes?"]  # fmt: skip
_MORE = ["[tell me |]another one", "another joke", "one more[| please]", "again", "another"]


def joke(rng: Random) -> Conversation:
    """A joke, sometimes two."""
    first, second = rng.sample(_JOKES, 2)
    messages = [ask(rng, _JOKE_REQUESTS), first.replace("|", " ")]
    roll = rng.random()
    if roll < 0.25:
        messages += [ask(rng, _MORE), second.replace("|", " ")]
    elif roll < 0.35:
        messages += [ask(rng, ["[haha|lol|that is funny|good one|very funny]"]),
                     pick(rng, ["I am glad you liked it! Would you like another one?"])]  # fmt: skip
    return chat(messages)


def riddle(rng: Random) -> Conversation:
    """A riddle, a guess and the answer."""
    question, answer = rng.choice(_RIDDLES).split("|")
    messages = [
        ask(rng, ["[tell me|give me|ask me] a riddle", "a riddle[, please|]", "do you know a riddle?", "riddle"]),
        question,
    ]
    if rng.random() < 0.5:
        messages += [
            ask(rng, ["i don't know", "what is [it|the answer]?", "tell me the answer", "no idea", "i give up"]),
            f"{answer}!",
        ]
    else:
        messages += [
            ask(rng, ["{a}?", "is it {a}?", "{a}"], a=answer.lower()),
            f"Yes, that is right! It is {answer.lower()}.",
        ]
    return chat(messages)


def poem(rng: Random) -> Conversation:
    """A short poem or a haiku on a known topic, or on any when none is named."""
    is_haiku = rng.random() < 0.3
    table, word = (_HAIKU, "haiku") if is_haiku else (_POEMS, "poem")
    topic = rng.choice(list(table))
    text = "\n".join(capitalised(line) for line in table[topic])
    asked = ["write [|me ]a [|short ]{w} about {t}", "[tell me|give me] a {w} about {t}", "a {w} about {t}", "can you write a {w} about {t}?",
             "please write a {w} about {t}"]  # fmt: skip
    if rng.random() < 0.25:
        asked = ["write [|me ]a [|short ]{w}", "[tell me|give me] a {w}", "can you write a {w}?", "a {w} please", "{w}"]
    return chat([ask(rng, asked, w=word, t=topic), text])


def poem_on_any_topic(rng: Random) -> Conversation:
    """A poem on a topic with another name, or on one that has no poem of its own."""
    asked = [
        "write [|me ]a [|short ]poem about {t}",
        "[tell me|give me] a poem about {t}",
        "a poem about {t}",
        "can you write a poem about {t}?",
    ]
    if rng.random() < 0.4:
        topic = rng.choice(list(_ALIASES))
        return chat([ask(rng, asked, t=topic), "\n".join(_POEMS[_ALIASES[topic]])])
    topic = rng.choice([*nouns.FRUITS, *nouns.HOBBIES, *nouns.DISHES, *nouns.CITIES, *nouns.COMMON_WORDS])
    text = "\n".join(rng.choice(_ANY_TOPIC)).replace("{t}", topic)
    return chat([ask(rng, asked, t=topic), text])


def verse(rng: Random) -> Conversation:
    """A joke, a poem or a riddle."""
    return rng.choices([joke, poem, poem_on_any_topic, riddle], [5, 4, 3, 2])[0](rng)

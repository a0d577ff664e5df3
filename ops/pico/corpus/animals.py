# ruff: noqa: SIM905 (word lists and sentences read best unwrapped)
"""What animals say, where they live, what they eat and what their young are called."""

from random import Random

from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.phrasing import article, ask, capitalised, pick

# kind: young, sound, home, food, number of legs, class
_ROWS = """dog:puppy:woof:in a kennel or with people:meat and dog food:4:mammal
cat:kitten:meow:in a house with people:meat and fish:4:mammal
cow:calf:moo:on a farm:grass:4:mammal
horse:foal:neigh:in a stable:grass and hay:4:mammal
sheep:lamb:baa:on a farm:grass:4:mammal
pig:piglet:oink:in a sty:roots and grain:4:mammal
hen:chick:cluck:in a coop:grain and worms:2:bird
duck:duckling:quack:in a pond:plants and small insects:2:bird
goose:gosling:honk:on a pond or a farm:grass and grain:2:bird
frog:tadpole:ribbit:in a pond:flies and insects:4:amphibian
lion:cub:roar:on the savanna:meat:4:mammal
tiger:cub:roar:in the jungle:meat:4:mammal
bear:cub:growl:in a den in the forest:berries, fish and honey:4:mammal
wolf:pup:howl:in the forest:meat:4:mammal
fox:kit:bark:in a den:mice, berries and eggs:4:mammal
owl:owlet:hoot:in a hole in a tree:mice:2:bird
mouse:pup:squeak:in a small hole:seeds and cheese:4:mammal
rabbit:kit:squeak:in a burrow:grass and carrots:4:mammal
goat:kid:bleat:on a farm or a mountain:grass and leaves:4:mammal
donkey:foal:hee-haw:in a stable:grass and hay:4:mammal
bee:larva:buzz:in a hive:nectar and pollen:6:insect
bird:chick:tweet:in a nest:seeds and worms:2:bird
snake:snakelet:hiss:in grass, sand or trees:mice and eggs:0:reptile
monkey:infant:chatter:in trees in the jungle:fruit and leaves:4:mammal
elephant:calf:trumpet:on the savanna:leaves and grass:4:mammal
deer:fawn:grunt:in the forest:leaves and grass:4:mammal
kangaroo:joey:grunt:in Australia:grass:4:mammal
penguin:chick:honk:in the cold south:fish:2:bird
whale:calf:song:in the ocean:fish and krill:0:mammal
dolphin:calf:click:in the ocean:fish:0:mammal
spider:spiderling:no sound:in a web:flies:8:arachnid
ant:larva:no sound:in an anthill:seeds and insects:6:insect
butterfly:caterpillar:no sound:in meadows and gardens:nectar:6:insect
fish:fry:no sound:in water:plants and small animals:0:fish
shark:pup:no sound:in the ocean:fish:0:fish
giraffe:calf:hum:on the savanna:leaves:4:mammal
zebra:foal:bark:on the savanna:grass:4:mammal
camel:calf:grunt:in the desert:dry grass and leaves:4:mammal
panda:cub:bleat:in bamboo forests in China:bamboo:4:mammal
koala:joey:grunt:in trees in Australia:eucalyptus leaves:4:mammal
squirrel:kit:squeak:in trees:nuts and seeds:4:mammal
hedgehog:hoglet:snuffle:in hedges and gardens:insects and worms:4:mammal
beaver:kit:splash of its tail:in a lodge in a river:bark and leaves:4:mammal
turtle:hatchling:hiss:in the sea or a pond:plants and jellyfish:4:reptile
crocodile:hatchling:growl:in rivers:meat and fish:4:reptile
eagle:eaglet:scream:in a nest on a cliff:fish and small animals:2:bird
parrot:chick:squawk:in the jungle:fruit and seeds:2:bird
bat:pup:squeak:in a cave:insects and fruit:2:mammal
seal:pup:bark:in cold seas:fish:0:mammal
crow:chick:caw:in a nest in a tree:almost anything:2:bird""".splitlines()

ANIMAL_ROWS = [tuple(row.split(":")) for row in _ROWS]
_NUMBER_WORDS = {"0": "no", "2": "two", "4": "four", "6": "six", "8": "eight"}


_SPOKEN = set(
    """woof meow moo neigh baa oink cluck honk quack ribbit hoot squeak bleat hee-haw buzz tweet hiss
caw""".split()
)


def _sound_answer(sound: str) -> str:
    return "{A} says {sound}." if sound in _SPOKEN else "The sound of {a} is a {sound}."


def _question(rng: Random, row: tuple[str, ...]) -> tuple[str, str]:
    kind, young, sound, home, food, legs, group = row
    slots = {
        "a": article(kind), "A": capitalised(article(kind)), "kind": kind, "young": young, "a_young": article(young),
        "sound": sound, "home": home, "food": food, "legs": _NUMBER_WORDS[legs], "group": article(group),
    }  # fmt: skip
    forms: list[tuple[list[str], list[str]]] = [
        (["what is a baby {kind}[| called]?", "what do you call a baby {kind}?", "what is the young of {a} called?"],
         ["A baby {kind} is called {a_young}."]),
        (["where does {a} live?", "where do you find {a}?", "what is the home of {a}?"], ["{A} lives {home}."]),
        (["what does {a} eat?", "what food does {a} eat?", "what do you feed {a}?"], ["{A} eats {food}."]),
        (["how many legs does {a} have?", "number of legs of {a}?"], ["{A} has {legs} legs."]),
        (["what kind of animal is {a}?", "is {a} {group}?", "what is {a}?"], ["{A} is {group}. It eats {food}."]),
        (["tell me about {a}", "tell me a fact about {a}", "what do you know about {a}?"],
         ["{A} is {group}. It lives {home} and eats {food}. Its young is called {a_young}."]),
    ]  # fmt: skip
    if sound != "no sound":
        forms.append((["what [sound|noise] does {a} make?", "what does {a} say?", "how does {a} sound?"],
                      [_sound_answer(sound)]))  # fmt: skip
    asked, answered = rng.choice(forms)
    return ask(rng, asked, **slots), pick(rng, answered, **slots)


def animal_fact(rng: Random) -> Conversation:
    """One question about an animal, sometimes with a second animal after it."""
    kind = rng.choice(ANIMAL_ROWS)
    messages = list(_question(rng, kind))
    if rng.random() < 0.25:
        other = rng.choice(ANIMAL_ROWS)
        messages += _question(rng, other)
    return chat(messages)

# ruff: noqa: SIM905 (word lists and sentences read best unwrapped)
"""Word lists shared by several themes."""

ANIMAL_HEROES = """fox bear rabbit mouse owl hedgehog badger squirrel deer wolf otter beaver frog toad
turtle tortoise duck goose swan hen cat kitten dog puppy pony horse donkey goat lamb pig cow crow
sparrow robin eagle parrot penguin seal whale dolphin octopus crab fish lion tiger elephant monkey
giraffe zebra hippo panda koala kangaroo camel bat mole snail ant bee spider butterfly ladybird
dragon unicorn dinosaur snake lizard crocodile raccoon chipmunk hamster peacock firefly moose
""".split()

PEOPLE_HEROES = """baker farmer sailor painter gardener carpenter tailor knight princess prince king
queen wizard witch pirate fisherman shepherd miller blacksmith teacher doctor librarian astronaut
explorer musician dancer cook postman clockmaker inventor scientist detective boy
girl giant ghost mermaid""".split()

THING_HEROES = """robot kite teapot lantern train boat cloud star snowman scarecrow toaster computer
candle umbrella tractor bicycle balloon clock pencil spoon drum kettle rocket tree raindrop leaf
pumpkin mountain moon puppet""".split()

PLACES = """in a green forest|by a quiet lake|on a small island|at the foot of a blue mountain
|in a sleepy village|near the sea|in a busy city|on a windy hill|at the edge of a wide desert
|in a little wooden house|beside a slow river|in a deep valley|under an old bridge|in a snowy land
|on a sunny farm|in a garden full of roses|near an old lighthouse|in a tall stone tower
|at the end of a long road|in a warm meadow|behind a waterfall|in a cosy cottage|on the edge of town
|in a harbour full of boats|under a giant oak tree|in a hidden cave|near a golden beach
|in a castle on a cliff|beside a frozen pond|in the middle of a cornfield""".replace("\n", "").split("|")

TRAITS = """brave kind clever shy curious gentle lazy funny patient lonely cheerful quiet young old
little proud careful honest stubborn friendly hopeful sleepy playful wise small""".split()

TREASURES = """red scarf|silver key|golden ring|blue lantern|small drum|wooden boat|old map|brass bell
|warm blanket|green hat|glass marble|favourite book|little flute|yellow kite|round button|clay pot
|white feather|shiny pebble|red ball|music box|paper star|tiny mirror|straw hat|copper coin
|woollen glove""".replace("\n", "").split("|")

FOODS = """bread soup apples honey berries cake cheese nuts pancakes carrots pears porridge biscuits
rice noodles pie plums mushrooms""".split()

COLOURS = "red blue green yellow orange purple pink brown black white grey gold silver".split()

FRUITS = """apple banana orange pear grape peach plum cherry lemon lime mango melon kiwi strawberry
raspberry blueberry pineapple apricot fig""".split()

VEGETABLES = """carrot potato onion tomato cabbage spinach broccoli pea bean pepper cucumber lettuce
leek turnip pumpkin beetroot garlic""".split()

DISHES = """pizza pasta sushi curry soup salad rice tacos pancakes noodles chocolate cake bread cheese
ramen stew dumplings burgers waffles""".split()

HOBBIES = """reading painting swimming running cooking singing dancing gardening fishing cycling
hiking chess football tennis knitting drawing photography baking climbing sailing""".split()

JOBS = """teacher doctor nurse farmer baker pilot engineer painter writer singer chef driver
gardener carpenter plumber lawyer programmer scientist student librarian""".split()

PET_KINDS = "dog cat rabbit hamster parrot goldfish pony turtle mouse canary".split()

ANIMALS = """dog cat horse cow sheep lion tiger bear wolf fox rabbit elephant giraffe monkey zebra
dolphin whale owl penguin frog mouse duck""".split()

CITIES = """Paris London Rome Madrid Berlin Lisbon Vienna Prague Oslo Tokyo Cairo Lima Toronto Boston
Sydney Dublin Athens Delhi Nairobi Seoul Warsaw Chicago Mumbai Lagos Istanbul Amsterdam""".split()

COMMON_WORDS = """apple banana bread bridge butter candle castle cat cloud coffee cookie dog dragon
dream family flower forest friend garden giraffe guitar hammer house island jacket kitchen
ladder lemon letter light lion mirror monkey moon morning mother mountain music ocean orange paper
pencil people planet pocket queen quire rabbit rain rainbow river rocket school shadow silver
sister snow spoon star stone storm summer sun table tiger train tree umbrella village violin water
whale window winter zebra elephant butterfly chocolate computer""".split()

# ruff: noqa: SIM905 (word lists and sentences read best unwrapped)
"""Small tables of facts about the world."""

CAPITALS = dict(
    row.split(":")
    for row in """France:Paris|Germany:Berlin|Italy:Rome|Spain:Madrid|Portugal:Lisbon|England:London
|the United Kingdom:London|Ireland:Dublin|Scotland:Edinburgh|Wales:Cardiff|the Netherlands:Amsterdam
|Belgium:Brussels|Switzerland:Bern|Austria:Vienna|Poland:Warsaw|Hungary:Budapest|Greece:Athens
|Turkey:Ankara|Sweden:Stockholm|Norway:Oslo|Denmark:Copenhagen|Finland:Helsinki|Iceland:Reykjavik
|Russia:Moscow|Ukraine:Kyiv|Romania:Bucharest|Bulgaria:Sofia|Serbia:Belgrade|Croatia:Zagreb
|Slovenia:Ljubljana|Slovakia:Bratislava|Estonia:Tallinn|Latvia:Riga|Lithuania:Vilnius|Egypt:Cairo
|Morocco:Rabat|Kenya:Nairobi|Ethiopia:Addis Ababa|Ghana:Accra|Nigeria:Abuja|Senegal:Dakar
|Tunisia:Tunis|Japan:Tokyo|China:Beijing|India:New Delhi|South Korea:Seoul|Thailand:Bangkok
|Vietnam:Hanoi|Indonesia:Jakarta|the Philippines:Manila|Nepal:Kathmandu|Iran:Tehran|Iraq:Baghdad
|Israel:Jerusalem|Lebanon:Beirut|Saudi Arabia:Riyadh|Australia:Canberra|New Zealand:Wellington
|Canada:Ottawa|the United States:Washington, D.C.|Mexico:Mexico City|Cuba:Havana|Brazil:Brasilia
|Argentina:Buenos Aires|Chile:Santiago|Peru:Lima|Colombia:Bogota|Uruguay:Montevideo
|Ecuador:Quito""".replace("\n", "").split("|")
)

CONTINENTS = {
    "Europe": "France Germany Italy Spain Portugal Poland Greece Sweden Norway Denmark Finland Austria Ireland".split(),
    "Africa": "Egypt Kenya Morocco Nigeria Ghana Ethiopia Senegal Tunisia".split(),
    "Asia": "Japan China India Thailand Vietnam Nepal Indonesia Iran".split(),
    "North America": "Canada Mexico Cuba".split(),
    "South America": "Brazil Argentina Chile Peru Colombia Uruguay Ecuador".split(),
}

LANGUAGES = {
    "France": "French", "Germany": "German", "Italy": "Italian", "Spain": "Spanish", "Portugal": "Portuguese",
    "Brazil": "Portuguese", "Japan": "Japanese", "China": "Chinese", "Russia": "Russian", "Greece": "Greek",
    "Poland": "Polish", "Mexico": "Spanish", "Argentina": "Spanish", "Austria": "German", "England": "English",
    "Australia": "English", "Egypt": "Arabic", "Sweden": "Swedish", "Norway": "Norwegian", "Denmark": "Danish",
    "Finland": "Finnish", "Turkey": "Turkish", "the Netherlands": "Dutch", "Hungary": "Hungarian",
}  # fmt: skip

PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """January February March April May June July August September October November
December""".split()
MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
SEASONS = ["spring", "summer", "autumn", "winter"]
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()

COLOURS_OF = dict(
    row.split(":")
    for row in """the sky:blue|grass:green|snow:white|a banana:yellow|blood:red|coal:black|a lemon:yellow
|milk:white|a carrot:orange|the sun:yellow|a leaf:green|chocolate:brown|an elephant:grey|a crow:black
|a strawberry:red|the sea:blue|a pumpkin:orange|a frog:green|sugar:white|a cherry:red|a cucumber:green
|a flamingo:pink|a swan:white|a fire engine:red|gold:yellow|the night sky:black|a tomato:red|a plum:purple
|a fox:red|a polar bear:white|honey:golden|salt:white|a lime:green|spinach:green""".replace("\n", "").split("|")
)

MATERIALS = dict(
    row.split(":")
    for row in """paper:wood|glass:sand|bread:flour, water and yeast|cheese:milk|butter:cream|wine:grapes
|a table:wood|a window:glass|a coin:metal|a jumper:wool|a brick:clay|a tyre:rubber|a candle:wax
|chocolate:cocoa beans|an omelette:eggs|juice:fruit|a shoe:leather|ice:frozen water|pasta:flour and water
|soup:water, vegetables and salt|a pencil:wood and graphite|a nail:iron|wool:the hair of sheep
|silk:the threads of silkworms|tofu:soya beans|jam:fruit and sugar|snow:tiny crystals of ice
|yoghurt:milk|a book:paper|a ring:gold or silver""".replace("\n", "").split("|")
)

USES = dict(
    row.split(":")
    for row in """a hammer:hit nails|a knife:cut things|a pen:write|a key:open a lock|an umbrella:stay dry in the rain
|a clock:tell the time|a spoon:eat soup|a bed:sleep|a lamp:see in the dark|a broom:sweep the floor
|a ladder:climb to high places|a towel:dry things|a brush:paint or clean|a needle:sew|a map:find the way
|a bridge:cross a river|an oven:bake|a fridge:keep food cold|a telephone:talk to people far away
|a camera:take pictures|a boat:travel on water|soap:wash|scissors:cut paper|a blanket:keep warm
|a mirror:see yourself|a saw:cut wood|a calendar:see the date|a thermometer:measure the temperature
|a ruler:measure a length|a telescope:look at the stars|a compass:find north|a bell:make a sound
""".replace("\n", "").split("|")
)

SENSES = {"see": "eyes", "hear": "ears", "smell": "nose", "taste": "tongue", "touch things": "skin", "walk": "legs"}

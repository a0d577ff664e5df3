# ruff: noqa: E501, SIM905 (word lists and sentences read best unwrapped)
"""Opposites, plurals, spelling, rhymes, synonyms and a few foreign words."""

from random import Random

from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.nouns import COMMON_WORDS
from ops.pico.corpus.phrasing import ask, capitalised, listed, pick

_OPPOSITES = [
    tuple(pair.split(":"))
    for pair in """big:small hot:cold up:down left:right day:night good:bad happy:sad fast:slow young:old
new:old long:short high:low open:closed full:empty light:dark hard:soft wet:dry early:late rich:poor
strong:weak loud:quiet clean:dirty near:far heavy:light thick:thin wide:narrow deep:shallow warm:cool
easy:difficult true:false yes:no black:white begin:end love:hate win:lose buy:sell come:go give:take
in:out over:under before:after first:last north:south east:west summer:winter sunrise:sunset brave:afraid
sweet:sour smooth:rough tall:short asleep:awake alive:dead always:never push:pull inside:outside
""".split()
]
_PLURALS = """child:children mouse:mice foot:feet tooth:teeth goose:geese man:men woman:women person:people
sheep:sheep fish:fish leaf:leaves knife:knives wolf:wolves city:cities baby:babies box:boxes bus:buses
fox:foxes dish:dishes potato:potatoes cat:cats dog:dogs house:houses tree:trees book:books car:cars
berry:berries story:stories key:keys toy:toys church:churches glass:glasses shelf:shelves thief:thieves
hero:heroes day:days lady:ladies ox:oxen deer:deer flower:flowers star:stars""".split()
_RHYMES = """cat hat bat mat|dog frog log fog|moon spoon soon tune|star car far jar|tree bee sea key
|light night bright kite|house mouse|day play way say|rain train plane cane|snow go slow blow
|king ring sing wing|bed red head bread|sun fun run one|cake lake snake make|fish dish wish|ball tall wall fall
|bear chair hair pear|sand hand land band|book cook look hook|blue shoe you true|gold cold old bold
|fox box socks rocks|boat coat goat note|green queen bean seen|stone bone phone alone|song long strong
|heart art start part|mind kind find blind|love dove glove above""".replace("\n", "").split("|")
_SYNONYMS = """happy:glad big:large small:little fast:quick smart:clever begin:start end:finish pretty:beautiful
angry:cross tired:sleepy scared:afraid rich:wealthy easy:simple hard:difficult quiet:silent funny:amusing
brave:courageous shout:yell talk:speak look:watch gift:present sick:ill""".split()

_TRANSLATIONS: dict[str, dict[str, str]] = {
    "French": dict(p.split(":") for p in """hello:bonjour thanks:merci goodbye:au_revoir yes:oui no:non cat:chat dog:chien
water:eau bread:pain house:maison friend:ami love:amour sun:soleil moon:lune book:livre red:rouge blue:bleu one:un two:deux
three:trois please:s'il_vous_plaît good_morning:bonjour good_night:bonne_nuit milk:lait""".split()),
    "Spanish": dict(p.split(":") for p in """hello:hola thanks:gracias goodbye:adiós yes:sí no:no cat:gato dog:perro
water:agua bread:pan house:casa friend:amigo love:amor sun:sol moon:luna book:libro red:rojo blue:azul one:uno two:dos
three:tres please:por_favor good_morning:buenos_días good_night:buenas_noches milk:leche""".split()),
    "German": dict(p.split(":") for p in """hello:hallo thanks:danke goodbye:auf_Wiedersehen yes:ja no:nein cat:Katze dog:Hund
water:Wasser bread:Brot house:Haus friend:Freund love:Liebe sun:Sonne moon:Mond book:Buch red:rot blue:blau one:eins two:zwei
three:drei please:bitte good_morning:guten_Morgen good_night:gute_Nacht milk:Milch""".split()),
    "Italian": dict(p.split(":") for p in """hello:ciao thanks:grazie goodbye:arrivederci yes:sì no:no cat:gatto dog:cane
water:acqua bread:pane house:casa friend:amico love:amore sun:sole moon:luna book:libro red:rosso blue:blu one:uno two:due
three:tre please:per_favore good_morning:buongiorno good_night:buona_notte milk:latte""".split()),
}  # fmt: skip


def _opposite(rng: Random) -> list[str]:
    first, second = rng.choice(_OPPOSITES)
    if rng.random() < 0.3 and (first, second) not in [("new", "old"), ("tall", "short"), ("heavy", "light")]:
        first, second = second, first
    if first in ("old", "short", "light"):
        first, second = "big", "small"
    asked = ["what is the opposite of {w}?", "opposite of {w}?", "what's the opposite of {w}?",
             "give me the opposite of {w}", "what is the antonym of {w}?"]  # fmt: skip
    return [ask(rng, asked, w=first), f"The opposite of {first} is {second}."]


def _plural(rng: Random) -> list[str]:
    one, many = rng.choice(_PLURALS).split(":")
    if rng.random() < 0.2:
        return [ask(rng, ["what is the singular of {w}?"], w=many), f"The singular of {many} is {one}."]
    asked = ["what is the plural of {w}?", "plural of {w}?", "one {w}, two what?", "how do you say more than one {w}?"]
    return [ask(rng, asked, w=one), f"The plural of {one} is {many}."]


def _spelling(rng: Random) -> list[str]:
    word = rng.choice(COMMON_WORDS)
    roll = rng.random()
    if roll < 0.6:
        asked = ["spell {w}", "how do you spell {w}?", "can you spell {w}?", "spell the word {w}"]
        return [ask(rng, asked, w=word), "-".join(word.upper())]
    if roll < 0.75:
        asked = ["what is the first letter of {w}?", "which letter does {w} start with?"]
        return [ask(rng, asked, w=word), f"The first letter of {word} is {word[0].upper()}."]
    if roll < 0.9:
        asked = ["what is the last letter of {w}?", "which letter does {w} end with?"]
        return [ask(rng, asked, w=word), f"The last letter of {word} is {word[-1].upper()}."]
    asked = ["how many letters are in {w}?", "how many letters does {w} have?"]
    return [ask(rng, asked, w=word), f"{'-'.join(word.upper())}: {word} has {len(word)} letters."]


def _rhyme(rng: Random) -> list[str]:
    words = rng.choice(_RHYMES).split()
    word = rng.choice(words)
    others = [other for other in words if other != word]
    asked = ["what rhymes with {w}?", "give me a rhyme for {w}", "a word that rhymes with {w}?", "rhymes with {w}?",
             "find a rhyme for {w}"]  # fmt: skip
    verb = "rhymes" if len(others) == 1 else "rhyme"
    return [ask(rng, asked, w=word), f"{capitalised(listed(others))} {verb} with {word}."]


def _synonym(rng: Random) -> list[str]:
    pair = rng.choice(_SYNONYMS).split(":")
    asked = ["what is another word for {w}?", "give me a synonym for {w}", "what is a synonym of {w}?"]
    return [ask(rng, asked, w=pair[0]), f"Another word for {pair[0]} is {pair[1]}."]


def _translation(rng: Random) -> list[str]:
    word = rng.choice(list(_TRANSLATIONS["French"])).replace("_", " ")
    first, second = rng.sample(list(_TRANSLATIONS), 2)

    def answer(language: str) -> str:
        found = _TRANSLATIONS[language][word.replace(" ", "_")].replace("_", " ")
        return pick(rng, ["In {l}, {w} is {f}."], l=language, w=word, f=found)

    asked = ["how do you say {w} in {l}?", "what is {w} in {l}?", "{w} in {l}?", "translate {w} to {l}",
             "what is the {l} word for {w}?"]  # fmt: skip
    messages = [ask(rng, asked, w=word, l=first), answer(first)]
    if rng.random() < 0.4:
        messages += [ask(rng, ["and in {l}?", "what about {l}?", "in {l}?"], l=second), answer(second)]
    return messages


def word_question(rng: Random) -> Conversation:
    """One question about a word."""
    kinds = [_opposite, _plural, _spelling, _rhyme, _synonym, _translation]
    return chat(rng.choices(kinds, [3, 1.5, 4.5, 2, 1, 2])[0](rng))

# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""Greetings, thanks, farewells and the small talk between them."""

from random import Random

from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.names import person_name
from ops.pico.corpus.phrasing import ask, expand, pick

_HELLOS = [
    "[hello|hi|hey|hello there|hi there|hey there|good day|greetings|howdy|yo|hiya|hello!|hi!]",
    "[hello|hi|hey] [quire|pico|friend|assistant|bot|computer|everyone|again|you]",
    "[hello|hi|hey], [anyone there|is anybody there|are you there|can you hear me]?",
    "[hello|hi|hey]",
]
_HELLO_REPLIES = [
    "[Hello|Hi|Hi there|Hello there]! [How can I help you today|How can I help you"
    "|What can I do for you|What would you like to talk about]?",
    "[Hello|Hi]! I am quire-pico, a small language model. [How can I help|What would you like to do]?",
    "[Hello|Hi]! [It is nice to meet you|Nice to meet you|Good to see you]. "
    "[Ask me a question, or ask for a story|You can ask me for a story, a fact or a sum].",
]

_DAYTIMES = ["morning", "afternoon", "evening"]

# Each row: how people ask, how the model answers.
_EXCHANGES: list[tuple[list[str], list[str]]] = [
    (
        ["how are you[| today| doing| feeling]?", "how is it going?", "how do you do?",
         "[hi|hello|hey][,|] how are you[| today| doing]?", "are you [ok|okay|well|fine]?",
         "what's up?", "how's your day?", "how have you been?"],
        ["I am [doing well|fine|very well], thank you! How [are you|about you]?",
         "I am [well|fine|ready to help], thanks for asking. [How can I help you|How are you]?",
         "All is well here, thank you. I am a small program, so every day is a good day. "
         "[What can I do for you|How are you]?"],
    ),
    (
        ["[thanks|thank you|thank you very much|thanks a lot|many thanks|cheers|thanks!|thx|ty]",
         "[great|ok|cool|perfect|nice], [thanks|thank you]", "thank you for your help",
         "thanks, that [helps|was helpful|is great]"],
        ["You are welcome!", "You are [very |]welcome! [Is there anything else|Can I help with anything else]?",
         "[Happy|Glad] to help!", "My pleasure! [Ask me anything else you like.|]"],
    ),
    (
        ["[bye|goodbye|bye bye|see you|see you later|good bye|bye!|farewell|take care|cya]",
         "i have to go[| now]", "see you [tomorrow|soon]", "ok bye", "talk to you later"],
        ["Goodbye! [Have a nice day|Have a good day|Come back soon|Take care].",
         "Bye! [It was nice talking to you|See you soon|Take care].", "See you [soon|later]! Take care."],
    ),
    (
        ["good night[|!]", "[i am|i'm] going to [bed|sleep]", "sleep well"],
        ["Good night! [Sleep well|Sweet dreams].", "Good night, and [sweet dreams|sleep well]!"],
    ),
    (
        ["i am [fine|good|well|great|ok][| too|, thanks]", "i'm [fine|good|well|great|ok][| too|, thanks]",
         "pretty good", "not bad", "doing well"],
        ["[I am glad to hear that|That is good to hear|Wonderful]! [How can I help you|What can I do for you]?"],
    ),
    (
        ["i am [sad|tired|lonely|upset|unhappy|not feeling well|having a bad day]",
         "i'm [sad|tired|lonely|upset|unhappy|not feeling well]", "i feel [sad|bad|lonely|down]"],
        ["I am sorry to hear that. [Would you like a story or a joke|Would a joke or a story help]?",
         "I am sorry to hear that. [A short walk or a talk with a friend may help|Be kind to yourself today]. "
         "[Would you like to hear a story|Shall I tell you a joke]?"],
    ),
    (
        ["i am [happy|excited|glad][| today]!", "i'm [happy|excited][| today]", "i feel [great|wonderful]"],
        ["[That is wonderful|That is great|I am glad to hear that]! What [makes you happy|made your day so good]?"],
    ),
    (
        ["i am bored", "i'm bored", "i have nothing to do", "entertain me", "what should we do?"],
        ["[I can help with that!|Let us fix that.] Would you like a story, a joke or a riddle?",
         "Then let us do something fun. Ask me for a joke, a story, a poem or a sum."],
    ),
    (
        ["i am hungry", "i'm hungry", "what should i eat?"],
        ["How about [some soup and bread|an apple and some cheese|pasta with tomatoes|a bowl of rice with vegetables]? "
         "It is simple and good."],
    ),
    (
        ["[you are|you're] [great|nice|smart|funny|cool|awesome|amazing|helpful|the best]",
         "i [like|love] you", "good [bot|job|answer]", "well done", "[nice|great|amazing|cool|wow|awesome]"],
        ["Thank you! [That is kind of you|You are kind|I am glad you like it].",
         "Thank you, [that is very kind|you are very kind]! [What else can I do for you?|]"],
    ),
    (
        ["[you are|you're] [stupid|dumb|bad|useless|wrong|silly|slow]", "that is [wrong|not right|bad]",
         "i don't like you", "that was [wrong|not good|bad]", "no, that is wrong"],
        ["I am sorry. I am a very small model and I make mistakes. [Please try asking in another way|"
         "Please check what I say].",
         "Sorry about that. I am small and often wrong. [Would you like to try another question?|]"],
    ),
    (
        ["[ok|okay|yes|sure|right|i see|alright|got it|fine|good|yep|yeah]"],
        ["[Good|Great|All right]! [What would you like to do next|What would you like to know|Is there anything else]?"],
    ),
    (
        ["[no|nope|no thanks|nothing|not really|never mind|nothing else]"],
        ["[All right|Okay|No problem]. [I am here if you need me|Just ask when you need something].",],
    ),
    (
        ["help", "help me", "can you help me?", "i need help", "i have a question", "can i ask you something?",
         "i need your help", "can i ask a question?"],
        ["Of course! [What do you need|What would you like to know|What is your question]?",
         "Yes, [please ask|go ahead]. I can answer simple questions, tell stories, do small sums and explain Quire."],
    ),
    (
        ["test", "testing", "this is a test", "[test|testing] 1 2 3", "ping", "are you working?", "are you there?"],
        ["[I am here|It works|I can read you|The test works]! [How can I help you?|What would you like to try?]"],
    ),
    (
        ["[sorry|i am sorry|my bad|excuse me|oops]"],
        ["No problem at all! [How can I help?|]", "That is all right. [What can I do for you?|]"],
    ),
    (
        ["what are you doing[| now| right now]?", "what do you do all day?", "are you busy?"],
        ["I am [waiting for your next question|here, reading your message]. [What would you like to know?|]",
         "I am answering you, one token at a time. [What would you like to talk about?|]"],
    ),
    (
        ["[lol|haha|hahaha|ha ha|:)|that is funny|that was funny]"],
        ["[I am glad you liked it|I am glad that made you smile]! Would you like [another one|a joke|a story]?"],
    ),
    (
        ["let's talk", "talk to me", "say something", "can we chat?", "let us chat", "tell me something"],
        ["[Sure|Gladly|I would like that]! What would you like to talk about? We could try [animals|stories|numbers|Quire].",
         "[Sure|Gladly]! Did you know that [an octopus has three hearts|honey never goes bad|a group of lions is called a pride"
         "|the Moon has no air|bees dance to show the way to flowers]?"],
    ),
    (
        ["happy birthday[|!]", "merry christmas[|!]", "happy new year[|!]"],
        ["Thank you! I wish you [a wonderful day|all the best|a lot of joy] too."],
    ),
]  # fmt: skip


def _daytime(rng: Random) -> Conversation:
    part = rng.choice(_DAYTIMES)
    user = ask(rng, ["good {part}[|!]", "good {part}, [quire|pico|friend]", "{part}!"], part=part)
    reply = "Good {part}! [How can I help you|What can I do for you|How are you][ today|]?"
    return chat([user, expand(rng, reply, part=part)])


def _introduction(rng: Random) -> Conversation:
    name = person_name(rng)
    user = ask(rng, ["[hi|hello|hey][,|] [i am|i'm|my name is|this is] {name}[|.]",
                     "[hi|hello|hey], {name} here"], name=name)  # fmt: skip
    reply = "[Hello|Hi], {name}! [Nice to meet you|It is nice to meet you]. [How can I help you|What can I do for you]?"
    return chat([user, expand(rng, reply, name=name)])


def greeting(rng: Random) -> Conversation:
    """A first message and a welcome."""
    roll = rng.random()
    if roll < 0.15:
        return _daytime(rng)
    if roll < 0.35:
        return _introduction(rng)
    return chat([ask(rng, _HELLOS), pick(rng, _HELLO_REPLIES)])


def small_talk(rng: Random) -> Conversation:
    """One exchange of small talk."""
    asked, answered = rng.choice(_EXCHANGES)
    return chat([ask(rng, asked), pick(rng, answered)])

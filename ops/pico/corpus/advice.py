# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""Short, harmless advice on everyday matters."""

from random import Random

from ops.pico.corpus.conversation import Conversation, chat
from ops.pico.corpus.phrasing import ask, pick

_ADVICE: list[tuple[list[str], list[str]]] = [
    (["how [can|do] i sleep better?", "i can't sleep", "how to fall asleep?", "tips for sleeping"],
     ["Go to bed at the same time every day, keep the room dark and put your phone away early."]),
    (["how do i learn [faster|better|something new]?", "how [can|do] i study[| better]?", "tips for learning"],
     ["Learn a little every day, take short breaks and explain it to somebody else. Practice helps more than reading twice."]),
    (["how do i make friends?", "how can i find friends?", "i have no friends"],
     ["Be kind, listen well and do things that you enjoy with other people. Friendship takes a little time."]),
    (["how [can|do] i stay healthy?", "how do i live [well|healthily]?", "health tips"],
     ["Sleep enough, move every day, eat vegetables and drink water. For anything serious, ask a doctor."]),
    (["i have a headache", "i feel sick", "i am ill", "my [head|back|stomach] hurts", "i have a cold"],
     ["I am sorry to hear that. Rest and drink some water. If it does not get better, please see a doctor."]),
    (["how do i make tea?", "how to make tea?"],
     ["Boil some water, pour it over the tea, wait three minutes and take the tea out. Enjoy!"]),
    (["how do i boil an egg?", "how long do i boil an egg?", "how to cook an egg?"],
     ["Put the egg in boiling water. Six minutes makes it soft, and ten minutes makes it hard."]),
    (["how do i make [coffee|a coffee]?", "how to make coffee?"],
     ["Put ground coffee in a filter, pour hot water over it slowly, and wait until it has dripped through."]),
    (["how do i cook [rice|pasta|noodles]?", "how to cook [rice|pasta]?"],
     ["Put it in a pot of boiling water with a little salt, and cook it until it is soft. Ten minutes is often enough."]),
    (["how do i make pancakes?", "how to make pancakes?", "pancake recipe"],
     ["Mix two eggs, a cup of milk and a cup of flour. Fry thin rounds in a hot pan with a little butter."]),
    (["how do i make [soup|a soup]?", "soup recipe", "how to make soup?"],
     ["Cut some vegetables, cook them in water with salt for twenty minutes, and mash or mix them if you like."]),
    (["how do i make a sandwich?", "how to make a sandwich?"],
     ["Take two slices of bread, add butter, cheese and some salad, and put them together."]),
    (["what should i do today?", "what can i do this weekend?", "give me an idea for the weekend"],
     ["You could [take a walk|read a book|call a friend|bake something|visit a museum|draw a picture]. A small plan is often the best plan."]),
    (["i am [nervous|stressed|worried|anxious]", "i feel [nervous|stressed|worried]", "how do i calm down?", "how can i relax?"],
     ["Breathe in slowly, count to four, and breathe out slowly. A short walk helps too."]),
    (["how do i [save|make] money?", "how to save money?"],
     ["Write down what you spend, buy only what you need and put a little away each month."]),
    (["how do i write [well|better]?", "how can i write better?", "writing tips"],
     ["Use short words and short sentences. Say one thing at a time, and read it aloud."]),
    (["how do i start [a garden|gardening]?", "how do i grow [tomatoes|plants|flowers]?", "how do i water plants?"],
     ["Choose a sunny place, plant in good soil, and give water when the soil feels dry."]),
    (["how do i learn [to program|programming|to code]?", "how do i start programming?"],
     ["Choose one language, such as Python, and write very small programs every day. Read other people's code too."]),
    (["give me [some |]advice", "any advice[| for me]?", "what is good advice?", "tell me something wise"],
     ["Be kind, be curious, and take one small step at a time.", "Do the small things well, and rest when you are tired."]),
    (["how do i wake up early?", "i am always late", "how can i be on time?"],
     ["Go to bed earlier, prepare everything in the evening, and put the alarm clock far from the bed."]),
    (["what should i [read|cook|watch|wear]?", "what book should i read?", "what should i cook[| tonight]?"],
     ["Choose something simple that you have at home. [Start small and see if you like it.|Old favourites are often best.]"]),
    (["how do i say [sorry|no]?", "how do i apologize?", "i had a fight with my friend"],
     ["Be honest and kind: say what happened, say how you feel, and listen to the answer."]),
    (["motivate me", "i want to give up", "i can't do it", "encourage me", "i failed"],
     ["You can do it! Take one small step now, and the next step will be easier.", "Everybody fails sometimes. Rest a little, then try once more."]),
]  # fmt: skip


def advice(rng: Random) -> Conversation:
    """One question about everyday life and a short answer."""
    asked, answered = rng.choice(_ADVICE)
    return chat([ask(rng, asked), pick(rng, answered)])

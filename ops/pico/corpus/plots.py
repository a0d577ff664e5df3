# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""Story plots: each is a theme and the beats from the problem to the ending.

Slots: name, kind, he, him, his, thing, found (hero and treasures), and fname, fkind, a_fkind, fhe,
fhim, fhis (the helper). A beat offers several sentences; one is told.
"""

from typing import NamedTuple


class Plot(NamedTuple):
    """The problem, what the hero tries, how the helper helps, how it ends, and the moral's theme."""

    theme: str
    problem: list[str]
    attempt: list[str]
    help: list[str]
    ending: list[str]


PLOTS = [
    Plot(
        "patience",
        ["[One day|One morning], {name} lost {his} {thing}. [{he} loved it more than anything.|It was {his} favourite thing.]",
         "[One windy day|One morning], {name} woke up and {his} {thing} was gone."],
        ["{he} looked [under every stone and behind every tree|in every corner], but {he} could not find it.",
         "{he} searched [all morning|until noon] and found nothing but [dust|old leaves]."],
        ["\"Let us walk back the way you came,\" said {fname}. [Step by step|Slowly], they looked again.",
         "{fname} had sharp eyes. \"We will look slowly, one place at a time,\" {fhe} said."],
        ["At last they found the {thing} [behind a big rock|under a bush|in a hollow tree]. {name} [laughed with joy|jumped for joy].",
         "And there was the {thing}, [shining in the grass|hanging from a branch]! {name} hugged {fname}."],
    ),
    Plot(
        "friendship",
        ["{name} had no friends, and [the days felt long|the evenings were very quiet].",
         "[But|Still,] {name} was often lonely, because nobody [came to visit|lived close by]."],
        ["One day {he} [painted a sign that said: Welcome|put {his} {thing} by the door, to show that guests were welcome], and waited.",
         "{he} sang a song every evening and hoped that someone would hear it."],
        ["\"I have looked for a friend too,\" said {fname}. They [shared some {food}|talked until the stars came out].",
         "{fname} sat down beside {him} and said, \"May I stay a while?\" They [laughed|talked] for hours."],
        ["From that day on, {name} and {fname} [met every day|were best friends].",
         "After that, {name} was never lonely again, for {fname} [came back every day|stayed close by]."],
    ),
    Plot(
        "courage",
        ["{name} was afraid of the dark. [Every night {he} hid under a blanket.|When the sun went down, {he} hid.]",
         "[But|There was one thing:] {name} was afraid of [deep water|thunder|high places], and the others laughed at {him}."],
        ["One night {he} heard somebody call for help [far away|from outside].",
         "One evening a small voice cried, \"Help! Please help me!\""],
        ["It was {fname} the {fkind}, [stuck in the mud|caught in a net|trapped under a branch]. {name} took a deep breath and pulled with all {his} strength.",
         "{name} was scared, but {he} took {his} {thing} and went. {he} found {fname} the {fkind} in a deep hole and pulled {fhim} out."],
        ["\"You are the bravest {kind} I know,\" said {fname}. {name} was not afraid any more.",
         "{fname} was safe. {name} had learned that [being brave means being afraid and going anyway|courage grows when you use it]."],
    ),
    Plot(
        "sharing",
        ["That winter, the snow was deep and there was very little food. {name} had only [one basket|a small bag] of {food}.",
         "One cold year nothing grew, and {name} had only a little {food} left."],
        ["{he} wanted to keep it all for {him}self. Then there was a knock at the door.",
         "{he} sat down to eat, but {he} heard someone crying outside."],
        ["\"I am so hungry,\" said {fname}. {name} thought for a moment and gave {fhim} half of the {food}.",
         "{fname} had not eaten for days. \"Come in,\" said {name}. \"There is enough {food} for two.\""],
        ["In spring {fname} came back with a cart full of {food}. [They had a feast.|Nobody was hungry again.]",
         "The next day {fname} showed {him} a secret place full of {food}. They shared it with everyone."],
    ),
    Plot(
        "home",
        ["One afternoon, {name} walked too far and lost the way home.",
         "One foggy morning, {name} took a wrong turn, and soon nothing looked familiar."],
        ["{he} called out, but only the wind answered. [The sky grew dark.|It began to rain.]",
         "{he} climbed a hill and looked around, but {he} saw only trees and clouds."],
        ["\"Follow the stars with me,\" said {fname}. \"I know the way.\" They walked together through the night.",
         "{fname} lit a small light and said, \"Tell me what your home looks like.\" {name} told {fhim}, and {fname} smiled. \"I know that place!\""],
        ["When the sun came up, {name} saw {his} own door. {he} made tea for {fname}, and it tasted better than ever.",
         "Soon they saw {his} home. \"Thank you,\" said {name}. \"Now it is your home too.\""],
    ),
    Plot(
        "kindness",
        ["One day, {name} found {a_fkind} named {fname} with [a hurt leg|a broken wheel|a bad cold].",
         "One rainy day, {name} heard a sneeze. It was {fname} the {fkind}, who was cold and wet."],
        ["Others had walked past, but {name} stopped. \"[Do not worry|Do not be afraid],\" {he} said.",
         "{name} was in a hurry, but {he} could not walk past."],
        ["{he} [wrapped {fhim} in a blanket|brought {fhim} hot soup] and stayed all night. {fname} slowly got better.",
         "{he} took {fhim} home, made a warm fire and shared {his} {food}."],
        ["Weeks later, {name} fell ill, and it was {fname} who came to take care of {him}. Kindness had come back.",
         "\"I will never forget this,\" said {fname}, and {fhe} gave {name} {fhis} {found}. {name} kept it for ever."],
    ),
    Plot(
        "practice",
        ["{name} wanted to learn to [sing|dance|swim|play the flute|paint|skate], but {he} was not good at it yet.",
         "{name} had one dream: to win the great [race|song contest|kite contest] of the year."],
        ["The first time {he} tried, everybody laughed. {name} went home with a red face.",
         "{he} tried and failed, and tried and failed again. \"I will never do it,\" {he} said."],
        ["\"Nobody is good on the first day,\" said {fname}. \"Try a little every morning, and I will help you.\"",
         "{fname} said, \"I failed a hundred times before I could do it.\" So they practised together every day."],
        ["When the big day came, {name} did it without a single mistake. Everybody cheered, and {fname} cheered loudest.",
         "A month later, {name} could do it. {he} was so happy that {he} [danced in the rain|laughed out loud]."],
    ),
    Plot(
        "wonder",
        ["One night, {name} saw a strange light [in the distance|between the trees|on the water].",
         "One evening, a small star fell from the sky and landed right in front of {name}."],
        ["{he} followed the light, [step by step|very quietly], with {his} {thing} in {his} hand.",
         "{he} had never seen anything so bright. \"What are you?\" {he} whispered."],
        ["There {he} met {fname}, {a_fkind} [who was lost|who came from far away]. \"I cannot find my way back,\" said {fname}. {name} promised to help.",
         "\"It must go back to the sky,\" said {fname} the {fkind}, who had seen it too. Together they carried it up the highest hill."],
        ["At midnight the light rose into the sky and [shone brighter than all the stars|drew a golden line]. {name} waved until it was gone.",
         "Since then, one star winks at {name} every night, and {he} always winks back."],
    ),
    Plot(
        "cleverness",
        ["One morning, the old bridge had fallen, and nobody could cross the river.",
         "One summer, the well ran dry, and everybody was thirsty."],
        ["{name} tried to [lift a heavy stone|dig with {his} bare hands], but it was too hard for one.",
         "The others shouted and argued. {name} sat down and thought."],
        ["\"You are good at thinking, and I am strong,\" said {fname}. {name} drew a plan in the sand, and they began to work.",
         "{name} had an idea. {he} asked {fname} the {fkind} for help, and {he} used {his} {thing} to [measure every step|mark the right place]."],
        ["By evening the work was done. Everybody [clapped|thanked them], and {name} smiled at {fname}.",
         "The plan worked! \"A good idea is stronger than a hundred arms,\" said {fname}."],
    ),
    Plot(
        "honesty",
        ["One day, {name} found a {found} on the road. It was beautiful, and {he} wanted to keep it.",
         "One day, {name} broke a {found} that was not {his} own. Nobody saw it."],
        ["{he} hid it under {his} bed, but {he} could not sleep that night.",
         "{he} said nothing, but {his} heart felt heavy like a stone."],
        ["In the morning {he} met {fname} the {fkind}, who was crying about the {found}. {name} told {fhim} the truth.",
         "\"I have to tell you something,\" {he} said to {fname}, the owner of the {found}. \"It was me. I am sorry.\""],
        ["{fname} was not angry. \"It takes courage to tell the truth,\" {fhe} said. They became good friends.",
         "\"Thank you for being honest,\" said {fname}. That night, {name} slept very well."],
    ),
    Plot(
        "growing",
        ["One spring, {name} found a tiny seed. \"I wonder what you will be,\" {he} said, and {he} planted it.",
         "An old traveller gave {name} a seed and said, \"Take good care of it.\""],
        ["Day after day {he} gave it water, but nothing happened. [\"Maybe it is asleep,\" {he} said.|{he} was ready to give up.]",
         "{he} waited one week, and then another. The ground stayed bare."],
        ["\"Some things need time,\" said {fname} the {fkind}. They sat beside it and told each other stories.",
         "{fname} looked at the ground and said, \"It needs more sun.\" So they moved the big stones away."],
        ["One morning there was a green leaf, and by summer a tall tree full of [fruit|flowers|birds]. {name} and {fname} sat in its shade.",
         "At last it grew into the most beautiful flower of all. {name} was very proud of it."],
    ),
    Plot(
        "adventure",
        ["One day, {name} found an old map in a bottle. A red cross marked [a far island|a dark cave|a tall hill].",
         "One morning a letter came. It said: Come to the old tower, and bring your {thing}."],
        ["{he} packed {his} {thing} and some {food}, and set off at once.",
         "The road was long, and a [wild river|deep valley|dark wood] lay in the way."],
        ["On the way {he} met {a_fkind} named {fname}, who knew [every path|a secret path]. \"Two are better than one,\" {fhe} said.",
         "{fname} the {fkind} built a small raft, and together they went on."],
        ["At the end they found a chest. It held no gold, but [a hundred wonderful books|seeds for a whole garden|a note: The treasure is your friend].",
         "They found the treasure: [a box of songs|a bag of silver bells|a lamp that never went out]. But the best part was the journey, said {name}."],
    ),
    Plot(
        "storm",
        ["One night, a great storm came. The wind howled, and the rain beat on the roof.",
         "One autumn day, the sky turned black and a terrible storm began."],
        ["{name} was safe inside, but then {he} thought of {fname} the {fkind}, who was out there alone.",
         "A strong wind took {his} roof away, and {name} had nowhere to go."],
        ["{he} took {his} {thing} and ran out. {he} found {fname} under a tree, and they held each other tight.",
         "\"Come to me!\" called {fname} the {fkind}. {fhis} home was small, but there was room for two."],
        ["In the morning there was a rainbow. [They built everything up again, together.|The world looked new and clean.]",
         "When the storm was over, they [sat in the sun|drank hot tea] and were glad to be together."],
    ),
    Plot(
        "gift",
        ["It was the birthday of {fname} the {fkind}, and {name} had no gift.",
         "{name} wanted to give {fname} the {fkind} something special, but {he} had no money."],
        ["{he} thought and thought. {he} had only an old {thing}.",
         "{he} went to the market, but everything cost too much."],
        ["So {he} worked all night and made a [song|little book|cake|picture] with {his} own hands.",
         "Then {he} had an idea: {he} cleaned {his} {thing} until it shone, and wrapped it in green leaves."],
        ["\"This is the best gift of all,\" said {fname}, \"because you made it for me.\"",
         "{fname} cried with joy and kept the gift for ever. {name} felt warm inside."],
    ),
]  # fmt: skip

"""What lies outside Brook's world: words to say and questions to ask that it knows nothing of. Plain data.

Everything is in two halves: the first is for training, the second for evaluation only.
"""

from __future__ import annotations

import numpy as np

SPOKEN = (
    "house river window garden table music doctor winter summer mother father letter paper mountain children "
    "people water bread coffee apple banana orange-juice potato kitchen morning evening tomorrow yesterday village "
    "hammer ladder pencil carpet engine rocket planet forest animal monkey tiger elephant rabbit chicken pigeon "
    "butter cheese sugar pepper silver copper market office school teacher student lawyer farmer sailor pilot "
    "monday friday january august holiday birthday weather thunder shadow mirror bottle basket candle curtain "
    "dog cat horse sheep bird fish tree leaf stone sand lake sea sky cloud rain snow wind fire smoke ash door wall "
    "floor roof chair desk lamp clock phone plate fork knife spoon cup glass bowl soup meat rice egg milk tea salt "
    "lime peach shirt shoe hat coat glove belt ring bag box rope chain wheel road street town farm field hill cave "
    "bay boat ship train bus truck plane bike gas oil wood steel lead tin cloth wool silk paint brush pen book page "
    "song dance game ball team coach judge king queen prince soldier baker nurse dentist singer actor artist uncle "
    "sister brother daughter husband fellow stranger captain colonel servant neighbour finger shoulder stomach "
    "pocket button collar ribbon hunger anger wonder danger reason season lesson nation station motion question "
    "answer begin happen travel follow carry hurry worry study listen remember forget believe imagine discover "
    "beautiful terrible possible different important expensive dangerous electric natural political simple double "
    "eleven twelve thirty hundred thousand million second third half several dozen sunlight fortune tunnel wander "
    "wonderful brown black grey golden maroon olive indigo beige crimson magenta great gene when hello bellow "
    # Much like a word of the vocabulary, one line for each.
    "zone hero zipper xerox narrow arrow zealous cereal series serious spirit zinc theory weary zigzag "
    "once run sun gun fun wand wash watch warm work world want worn swan wondrous won't woman "
    "tooth tune tool tube tuesday stew chew do dew new you true through tour soon moon loop choose "
    "free thread throw thrill threat teeth theme thief feet agree degree throat thirsty "
    "form force forty fall fog fort more bore shore war store foreign forge afford course saw "
    "fine find dive hive life strive vibe alive drive fight finance final ivy file fly pie "
    "sick socks fix mix kicks wax signal socket syrup sips tricks bricks text success this "
    "heaven sudden sever oven given session selfish seldom sentence settle leaven melon "
    "aid age late gate wait date hate ape ache weight rate cape estate able "
    "nice night line mine wine sign pine lion nylon knight noun nun none denial "
    "bed head ready rid rod rent wreck rather shed dead wed rib rest credit rabble ahead "
    "orchard origin oracle arrange porridge organ ostrich storage warrant orbit author forage "
    "yell jello mellow pillow yacht youth yonder yield willow billow year yes yet young yard cello "
    "greet grin grain clean screen dream cream greed keen grind groan gear grime glean "
    "blow bloom glue clue flew blood block blame lose brew grew balloon bluff blur below plume "
    "person purpose turtle perfect maple ripple pupil purchase perhaps purse burden hurtle papal pebble topple herbal "
    "pin pick think drink link wink sink ping punk picnic penguin pig ink pinch "
    "wide while why wife wipe quiet light kite bite height write whale wheat invite violet wild "
    "afternoon balcony calendar camel canyon cathedral ceiling century ceremony chocolate cinema circus classroom "
    "climate comet compass concert corridor cottage crystal customer delivery department diamond dictionary dinner "
    "direction document eagle editor education elevator emerald emperor energy equator error evidence factory family "
    "festival fever flower formula frozen furniture galaxy gallery gentle geography ghost glacier gravity guardian "
    "harbour harvest hedgehog horizon hotel industry insect instrument invisible ivory jelly jewel journey jungle "
    "justice keyboard kettle labour lantern laundry lettuce library liquid lobster luggage magazine magnet mansion "
    "marble medal member memory message metal midnight minute mistake monster monument muscle mystery needle nephew "
    "network nobody notebook nowhere object oxygen package palace panther parade parrot passenger pavement peanut "
    "perfume piano pirate plastic pleasure poison popcorn postcard powder prison project promise puzzle pyramid "
    "quality quantity rattle receipt recipe refrigerator remote rescue restaurant rhythm robot saddle salmon satellite "
    "scissors secret shelter skeleton slipper spider spinach squirrel stadium statue strawberry surface swallow symbol "
    "telephone temple theatre ticket tissue tomato tongue tractor treasure trouble tulip turkey uniform universe "
    "vacuum valley vanilla vegetable velvet victory vinegar visitor volcano voyage waiter warrior wedding whisper "
    "whistle wizard zoo",
    "airport bicycle camera dolphin envelope fountain guitar hospital island jacket kangaroo lemon museum "
    "napkin ocean pumpkin quarter railway sandwich trumpet umbrella violin wallet yogurt zebra blanket cousin "
    "dragon elbow feather giraffe helmet",
)

_THINGS = (
    "dog cat horse car house tree bird fish king queen city country river mountain book song film game star-sign "
    "planet moon sun ship train bicycle computer phone teacher doctor president minister company bank school "
    "church hospital garden kitchen table chair window door shoe hat coat shirt apple bread cheese soup cake",
    "lamp spoon castle bridge airport hotel painter writer island desert forest engine battery camera violin "
    "sandwich umbrella professor neighbour senator",
)
_NAMES = (
    "Anna Peter France Spain Germany Japan London Paris Rome Berlin Mary John Robert Susan India China Egypt",
    "Oslo Madrid Brazil Canada Thomas Laura Vienna Kenya",
)
_FORMS = (
    (
        "What is the capital of {name}?",
        "Who is {name}?",
        "How old is the {thing}?",
        "Where does {name} live?",
        "Tell me a joke about a {thing}.",
        "How much does a {thing} cost?",
        "What is the name of the {thing}?",
        "Why is the {thing} so loud?",
        "Who made the {thing}?",
        "Write a poem about a {thing}.",
        "Do you like {name}?",
        "What is the weather in {name}?",
        "When was {name} born?",
        "What does the {thing} say?",
        "Is {name} older than {other}?",
        "Translate {thing} into French.",
        "What is the {thing} made of?",
        "Where is the {thing}?",
        "What colour is the {thing}?",
        "Is there a {thing}?",
        "How many of the {thing} are open?",
        "Can you play a {thing}?",
        "What did {name} eat?",
        "How do I get to {name}?",
        "What time is it?",
        "How are you?",
        "What is your name?",
        "What is love?",
        "Which {thing} is the best?",
        "Is the {thing} open?",
        "Has {name} been here?",
        "What did you do with the {thing}?",
        "Where did {name} put the {thing}?",
        "How long is the {thing}?",
        "How many {thing}s does {name} have?",
        "Do you see a {thing}?",
        "Can you see {name}?",
        "What size is the {thing}?",
        "Is the {thing} small or large?",
        "Which way did the {thing} move?",
        "What colour was the {thing} before?",
        "Which colour is the {thing}?",
        "What shape is the {thing}?",
        "How many {thing}s do you see?",
        "Where do you see the {thing}?",
        "Did you hear {name}?",
        "Which {thing}s did you hear?",
        "What was there when you heard the {thing}?",
        "Explain the {thing} to {name}.",
        "Count to {other}.",
        "Give me a {thing}.",
        "What happened to {name} in {other}?",
        "When does the {thing} come?",
        "Who has seen the {thing}?",
        "How do you make a {thing}?",
        "Why did {name} leave {other}?",
        "What is a {thing} good for?",
        "Which day is it?",
        "How much is that {thing}?",
        "How tall is {name}?",
        "What does {name} want?",
        "Say something about {name}.",
        "Sing of the {thing}.",
        "Who owns the {thing} in {name}?",
        "Where was {name} born?",
    ),
    (
        "Who is the president of {name}?",
        "How far is it to {name}?",
        "How heavy is a {thing}?",
        "Tell me a story about a {thing}.",
        "What is the price of a {thing}?",
        "How old is {name}?",
        "Who wrote about the {thing}?",
        "What colour is the {thing}?",
        "Where is the {thing}?",
        "Where can I buy a {thing}?",
    ),
)


def spoken(half: int) -> list[str]:
    """Words to be said: `half` 0 for training, with many that nobody has heard; 1 for evaluation."""
    words: list[str] = list(SPOKEN[half].split())
    if half:
        return words
    random = np.random.default_rng(0)
    made_up = {_made_up(random, least=2) for _ in range(_MADE_UP)}
    return [*words, *sorted(made_up - set(words) - set(SPOKEN[1].split()))]


_SYLLABLES = (
    "ba be bo bu da de di do fa fo ga go gra ha he ho ka ki ko la le li lo ma me mi mo na ne no pa pe po ra re ri ro "
    "sa se si so sta ta te ti to tra va ve vi wa we wo za"
).split()
_MADE_UP = 400
_ENDINGS = ("", "", "n", "r", "s", "t", "l", "ck", "st", "ng", "rd", "lly", "tion", "ment")


def question(random: np.random.Generator, half: int) -> str:
    """A question that only somebody who knows more than this world could answer.

    In training most names and things are words that nobody has heard, so that every unknown word is one.
    """
    form = str(random.choice(_FORMS[half]))
    names = [str(name) for name in random.choice(_NAMES[half].split(), 2, replace=False)]
    thing = str(random.choice(_THINGS[half].split()))
    if not half:
        thing = thing if random.random() < 0.4 else _made_up(random)
        names = [name if random.random() < 0.4 else _made_up(random).capitalize() for name in names]
    return form.format(name=names[0], other=names[1], thing=thing)


def _made_up(random: np.random.Generator, least: int = 1) -> str:
    parts = [str(part) for part in random.choice(_SYLLABLES, int(random.integers(least, 4)))]
    return "".join(parts) + str(random.choice(_ENDINGS))

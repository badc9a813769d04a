"""English function words in eight classes, by which metrics count and themes are named.

The classes are those of Danescu-Niculescu-Mizil and others (2012). The words are compiled from
grammars of English, since the paper's lists (LIWC's) are not free. They are in lower case with a
plain apostrophe, like the words of messages. A word may be in several classes, and a contraction is
in those of its parts: "i'm" is a personal pronoun and an auxiliary verb. Spellings without the
apostrophe that are not another word, such as "dont", are included.
"""

from __future__ import annotations

from typing import Final

_PRONOUNS_WITH_VERBS: Final = """
    i'm you're we're they're he's she's it's
    i've you've we've they've
    i'll you'll he'll she'll it'll we'll they'll
    i'd you'd he'd she'd it'd we'd they'd
    im ive youre theyre youve theyve
"""

_INDEFINITE_WITH_VERBS: Final = """
    that's that'll that'd this's there's there'll there'd what's what're what'll what'd who's who're
    who'll who'd who've everyone's everybody's everything's someone's somebody's something's
    nobody's nothing's thats whats
"""

_NEGATED_VERBS: Final = """
    ain't aren't isn't wasn't weren't don't doesn't didn't haven't hasn't hadn't can't couldn't
    won't wouldn't shouldn't mustn't mightn't needn't shan't
    dont doesnt didnt isnt wasnt arent werent havent hasnt hadnt couldnt wouldnt shouldnt
"""

_LISTS: Final = {
    "articles": "a an the",
    "auxiliary verbs": f"""
        am are is was were be been being
        have has had having do does did
        can cannot could may might must shall should will would ought
        {_PRONOUNS_WITH_VERBS} {_INDEFINITE_WITH_VERBS} {_NEGATED_VERBS}
        where's how's here's when's could've should've would've might've must've
    """,
    "conjunctions": """
        and or but nor so yet if because cause cuz since although though unless until till while
        whereas whether than as when whenever where wherever before after once lest plus either
        neither
    """,
    "frequent adverbs": """
        very really just so too also only even still already always never often sometimes usually
        again ever now then here there soon later today maybe perhaps probably actually almost
        quite rather pretty however anyway instead else away back well far
    """,
    "indefinite pronouns": f"""
        it its itself this that these those who whom whose what whatever which whichever whoever
        anybody anyone anything everybody everyone everything nobody none nothing somebody someone
        something one ones other others another stuff thing things
        {_INDEFINITE_WITH_VERBS} it's it'll it'd
    """,
    "personal pronouns": f"""
        i me my mine myself you your yours yourself yourselves u ur ya y'all
        he him his himself she her hers herself we us our ours ourselves let's
        they them their theirs themselves
        {_PRONOUNS_WITH_VERBS.replace("it's", "").replace("it'll", "").replace("it'd", "")}
    """,
    "prepositions": """
        about above across after against along among around as at before behind below beneath
        beside besides between beyond by despite down during except for from in inside into like
        near of off on onto out outside over past per since through throughout till to toward
        towards under underneath until up upon via with within without
    """,
    "quantifiers": """
        all any both each either every few fewer less least many more most much neither none several
        some enough plenty lot lots bit couple little half whole total another
    """,
}

MARKERS: Final = {name: tuple(sorted(set(words.split()))) for name, words in _LISTS.items()}
"""The words of each class."""

_OTHERS: Final = ("how", "no", "not", "why")

FUNCTION_WORDS: Final = tuple(sorted({*_OTHERS, *(w for words in MARKERS.values() for w in words)}))
"""The words of all classes, negations, and the question words that are in none of them."""

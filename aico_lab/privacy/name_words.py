"""Words by which names are told from other words, in lower case."""

from __future__ import annotations

from typing import Final

_GIVEN: Final = """
    adam agnes ahmed alan alejandro alex alexander alexandra ali alice amanda amy ana andrea
    andreas andrew angela anna anne annika anthony antonio arthur ashley astrid barbara ben
    benjamin bernd beth bill birgit bob brandon brian bruno camille carla carlos carmen
    caroline catherine charles charlotte chiara chloe chris christian christina christine
    christoph claire clara claudia cynthia daniel daniela dave david debbie diana diego
    dieter dmitri donna dorothy dylan edward elena eli elias elisabeth elizabeth ella ellen
    emil emily emma eric erik ethan eva fabian fatima felix fernando finn florian francesca
    francesco franz frank fred frieda gabriel gary george gerhard giulia giulio greta hannah
    hans harry hassan heather heidi heike helen helena helga henry hugo ibrahim ingrid irene
    isabel isabella ivan jack jacob jake james jamie jan jana jane janet jason javier jean
    jeff jennifer jenny jens jeremy jessica jim joan joanna joao joe johanna john johnny
    jonas jonathan jordan jorge jose josef joseph josh joshua juan juergen julia julian
    julie justin karen karin karl kate katharina katherine kathy katie keith kelly ken kevin
    klara klaus kristen kyle lara lars laura lauren lea lena leo leon leonie lily linda lisa
    liz lotte louis louise luca lucas lucia lucy luis luisa lukas luke lydia maja manuel
    marcel marco marcus margaret maria marie mario marion mark markus marta martha martin
    martina mary matteo matthew matthias max megan melanie mia michael michelle miguel mike
    miriam mohammed monica monika nadia nancy natalie natasha nick nicole niklas nina noah
    nora oliver olivia omar oscar otto pablo pam pamela patricia patrick paul paula pedro
    peter petra phil philip philipp pierre rachel rafael ralf rebecca renate richard rick
    rob robert roberto robin roger rosa rose ruth ryan sabine sam samantha samuel sandra
    sara sarah scott sean sebastian sergei sharon silvia simon sofia sophia sophie stefan
    stefanie stephanie stephen steve steven susan susanne sven tamara tanja teresa thomas
    tim timo tina tobias tom tommy tony tracy ulrike ursula uwe valentina vanessa vera
    veronica victor victoria vincent walter wendy werner will william wolfgang yusuf yvonne
    zoe
"""

_ALSO: Final = """
    will rose mark jack bill frank max sean rob pam tim
"""

_CAPITALS: Final = """
    i i'm i'll i've i'd im ill ive ok okay tv pc ai monday tuesday wednesday thursday friday
    saturday sunday january february march april may june july august september october
    november december christmas easter halloween thanksgiving god internet netflix youtube
    google instagram english german french spanish italian american british european lol omg
    imo btw asap yes no haha mom mum dad mama papa
"""

_AFTER: Final = """
    a an the so not it that this out back now later again after all ya you everyone
    everybody there guys all my your her his our their to and or when if in for der die das
    ein eine es ihr wie was du un une le la les el los il lo
"""

GIVEN_NAMES: Final = frozenset(_GIVEN.split())
"""Frequent given names in English, German, French, Spanish and Italian."""

ALSO_WORDS: Final = frozenset(_ALSO.split())
"""Of these, the words that are names only with a capital inside a sentence."""

USUAL_CAPITALS: Final = frozenset(_CAPITALS.split())
"""Words that are written with a capital, and are no names of people."""

NOT_AFTER_CUES: Final = frozenset(_AFTER.split())
"""Words that are no names where one may follow, as after "call me"."""

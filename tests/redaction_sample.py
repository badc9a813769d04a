"""Invented messages whose names, numbers and addresses are labelled, to measure the redaction.

A label is written as `{N:Marta}` for a name, `{D:0151 2345678}` for a number, `{A:…}` for an
address.
"""

from __future__ import annotations

import re
from typing import Final

KINDS: Final = {"N": "NAME", "D": "NUMBER", "A": "ADDRESS"}
_LABEL: Final = re.compile(r"\{([NDA]):([^}]*)\}")

SAMPLE: Final = """
Hi, I'm {N:Marta} and I moved to {N:Lisbon} last spring.
my name is {N:priyanka} but everyone calls me {N:pri}
{N:Otto} forgot my birthday again, it's on the {D:14th} of May
Can you remind me to call {N:Dr. Feldmann} at {D:030 / 881 22 07}?
I had dinner with {N:Sarah} and {N:Tomasz} yesterday, it was lovely.
You can write me at {A:marta.k@example.org} or look at {A:https://marta.example.org/blog}
My sister {N:Ingeborg} lives in {N:Cork}, her street is {N:Patrick Street} {D:12}.
Mr {N:Okafor} said the exam is on {D:03/11/2025} at {D:9:30}.
haha yes {N:jonas} told me the same
{N:Elena}'s dog ate {N:Viktor}'s homework!
I love how you explain things, thank you!
The doctor gave me {D:20} mg and told me to come back in {D:2} weeks.
My account is {D:DE89 3704 0044 0532 0130 00} at the bank in {N:Köln}.
Yesterday I told {N:Anselm} that I want to quit.
ask {A:@rosalind_k} she knows everyone
Why does my mother never listen to me?
We met at {N:Heathrow} and flew to {N:Nairobi} together.
call me {N:Bee}, please
Dear {N:Henrike}, I'm sorry about last night. Love, {N:Pascal}
I think I am falling for {N:Noor} and I don't know what to do.
{N:Wolfram} and I broke up after {D:7} years.
Is it normal to feel this tired in winter?
His number is {D:+44 20 7946 0958}, but he never answers.
I work at {N:Siemens} with {N:Guillermo} from {N:Argentina}.
They named the baby {N:Ottilie}.
My boss, {N:Ms. Achterberg}, wants the report by Friday.
look at this {A:www.knitting-forum.net/thread/8812}
I am {D:34} years old and weigh {D:71,5} kg.
Do you remember {N:Kofi}? He asked about you.
Tell me a story about a dragon and a brave girl.
{N:Zuzana} is coming over on Saturday.
I miss grandma {N:Rosl} so much.
I live at {D:221b} {N:Baker Street}.
the plate was {D:KA 1234} i think
Honestly, {N:Priya Raman} deserved that prize.
i told {N:mehmet} i would be late
Ich heiße {N:Annegret} und wohne in {N:Bremen}.
Gestern war ich mit {N:Lukas} im Kino, der Film war großartig.
Meine Nummer ist {D:0176 55667788}, ruf mich bitte an.
Frau {N:Wiesinger} hat mir gesagt, dass der Termin am {D:12.3.} ist.
Ich habe heute schlecht geschlafen und bin sehr müde.
Liebe {N:Gesine}, danke für deinen Brief.
Mein Bruder heißt {N:Thorben} und studiert Medizin.
Warum fühle ich mich am Abend immer so allein?
{N:Friedlinde} kommt morgen zum Essen.
Je m'appelle {N:Solène} et j'habite à {N:Nantes}.
J'ai parlé avec {N:Benoît} hier soir, il est toujours triste.
Mon numéro est le {D:06 12 34 56 78}.
Pourquoi est-ce que tu ne réponds jamais à ma question ?
Me llamo {N:Jimena} y tengo {D:29} años.
Ayer vi a {N:Ramón} en la plaza con su perro.
No sé si quiero seguir trabajando aquí.
Mi chiamo {N:Ginevra} e vivo a {N:Torino}.
Ho detto a {N:Tommaso} che non vengo alla festa.
{N:Aoife} texted me {D:3} times today, what should I answer?
OK, but what would you do in my place?
My therapist {N:Dr Lindqvist} says I should write to you less.
I'm reading a book by {N:Ishiguro} at the moment.
Every Tuesday I play chess with {N:Abdul} and {N:Marguerite}.
{N:Hyacinth}, {N:Basil} and I went to {N:Wales}.
mail it to {A:b.lund@uni-example.de}, not to {A:lund@example.com}
Send {D:250} euros to {N:Jolanda} before {D:31} December.
I wish you were real.
so {N:tadeusz} finally apologised
Could you write a poem for {N:Clementine}'s {D:18th} birthday?
""".strip().splitlines()


def plain(line: str) -> str:
    """Return a message without its labels."""
    return _LABEL.sub(r"\2", line)


def labelled(line: str) -> list[tuple[str, str]]:
    """Return the kind and the text of each label."""
    return [(KINDS[kind], text) for kind, text in _LABEL.findall(line)]

"""Recognise the columns of a table by their names, in several languages and spellings."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from aico_lab.errors import InvalidValue, UnknownName, did_you_mean
from aico_lab.sources.exports.engine.names import may_be_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NAMES: Final[dict[str, tuple[str, ...]]] = {
    "content": (
        *("content", "text", "message", "body", "messagetext", "messagecontent", "messagebody"),
        *("msg", "utterance", "nachricht", "inhalt", "nachrichtentext", "mitteilung", "texte"),
        *("contenu", "corps", "texto", "mensaje", "contenido", "cuerpo", "textodelmensaje"),
        *("what", "was", "quoi", "que", "ausserung", "messaggio", "testo"),
        *("contenuto", "testodelmessaggio", "mensagem", "conteudo", "textodamensagem"),
    ),
    "question": (
        *("question", "prompt", "userprompt", "usermessage", "userinput", "userquery", "query"),
        *("input", "request", "instruction", "user", "human", "frage", "eingabe", "requete"),
        *("pregunta", "entrada", "domanda", "richiesta", "pergunta"),
    ),
    "answer": (
        *("answer", "response", "assistantmessage", "assistantresponse", "botmessage"),
        *("botresponse", "airesponse", "modelresponse", "completion", "output", "reply"),
        *("assistant", "bot", "ai", "companion", "antwort", "ausgabe", "reponse", "respuesta"),
        *("salida", "risposta", "resposta", "saida"),
    ),
    "timestamp": (
        *("timestamp", "datetime", "dateandtime", "datetimestamp", "createdat", "sentat"),
        *("createtime", "senttime", "sendtime", "messagetime", "sentdate", "created", "sent"),
        *("date", "time", "ts", "when", "unixtime", "epoch", "zeitstempel", "zeitpunkt"),
        *("gesendetam", "gesendet", "erstelltam", "datumuhrzeit", "datumundzeit"),
        *("datumunduhrzeit", "datum", "uhrzeit", "zeit", "horodatage", "envoyele", "creele"),
        *("dateheure", "dateetheure", "datedenvoi", "heure", "fechahora", "fechayhora", "fecha"),
        *("enviadoel", "enviado", "creadoel", "marcadetiempo", "fechadeenvio", "hora"),
        *("wann", "quand", "cuando", "dataora", "dataeora", "inviatoil", "creatoil", "orario"),
        *("ora", "datahora", "dataehora", "enviadoem", "criadoem", "data"),
        *("prompttime", "questiontime"),
    ),
    "role": (
        "role",
        "messagerole",
        "authorrole",
        "senderrole",
        "sendertype",
        "rolle",
        "rol",
        "ruolo",
    ),
    "author": (
        *("author", "sender", "from", "user", "name", "speaker", "username", "sendername"),
        *("authorname", "fromname", "displayname", "participant", "writer", "sentby"),
        *("autor", "absender", "absenderin", "von", "benutzer", "nutzer", "verfasser", "sprecher"),
        *("auteur", "expediteur", "de", "utilisateur", "nom", "remitente", "usuario", "nombre"),
        *("autora", "authorid", "senderid", "fromid", "who", "wer", "qui", "quien"),
        *("verfasserin", "sprecherin", "mittente", "autore", "autrice", "utente", "nome"),
        *("interlocutore", "remetente", "utilizador"),
    ),
    "user_id": ("userid",),
    "channel_id": (
        *("channel", "channelid", "channelname", "room", "kanal", "raum", "canal", "salon", "sala"),
        *("canale", "stanza"),
    ),
    "conversation_id": (
        *("conversation", "conversationid", "thread", "threadid", "chat", "chatid", "chatname"),
        *("session", "sessionid", "dialogue", "dialog", "unterhaltung", "gesprach", "sitzung"),
        *("konversation", "discussion", "conversacion", "hilo", "sesion", "conversazione"),
        *("sessione", "conversa", "sessao"),
    ),
    "message_id": (
        *("messageid", "id", "msgid", "uuid", "mid", "nachrichtid", "nachrichtenid"),
        *("idmessage", "identifiant", "idmensaje", "nummer", "nr"),
    ),
    "reply_to": (
        *("replyto", "inreplyto", "replytoid", "replytomessageid", "parentid", "antwortauf"),
        *("enreponsea", "respuestaa"),
    ),
    "sentiment_score": ("sentimentscore",),
    "response_time": ("responsetime",),
    "answer_time": ("answertime", "answertimestamp", "responsetimestamp"),
    "metadata": ("metadata",),
}
"""The spellings of each field's name, as `folded` returns them; earlier ones win."""

_QUESTIONS: Final = (
    frozenset({"who", "when", "what"}),
    frozenset({"wer", "wann", "was"}),
    frozenset({"qui", "quand", "quoi"}),
    frozenset({"quien", "cuando", "que"}),
)
"""Questions by language; one alone may ask for anything."""

_DATA_IS_DATE: Final = frozenset(
    {
        *("ora", "orario", "hora", "messaggio", "testo", "mittente", "autore", "contenuto"),
        *("mensagem", "remetente", "conteudo"),
    }
)
"""Columns beside which `data` is Italian or Portuguese, and means a date."""

NUMBERS: Final = frozenset({"nummer", "nr"})
"""Spellings of ids that may also be other numbers, such as those of telephones."""

_PAIR: Final = ("question", "answer")
_OF_PAIRS: Final = (*_PAIR, "answer_time")
_TASK: Final = ("instruction", "input")
"""Spellings of a task and of what it is about, which are a question together."""

_ONE_MESSAGE: Final = ("message", "msg")
"""Spellings of a text that is a question, if the table has answers and names no writers."""

OWN: Final = frozenset(NAMES) - {"author", *_OF_PAIRS}
"""The names of the columns of this package's own tables."""

_ALIASES: Final = {"id": "message_id", "conversation": "conversation_id", "channel": "channel_id"}
_DATES: Final = (
    "date",
    "datum",
    "fecha",
    "day",
    "tag",
    "jour",
    "dia",
    "sentdate",
    "dateenvoi",
    "data",
)
_TIMES: Final = ("time", "uhrzeit", "zeit", "heure", "hora", "ora", "orario", "senttime")
_UNITS: Final = re.compile(r"[\W_]+(?:utc|gmt|ms|s|sec|seconds|us|unix)[\W_]*$", re.IGNORECASE)
_UTC: Final = re.compile(r"(?:\b|_)(?:utc|gmt)(?:\b|_)", re.IGNORECASE)
_SHORT: Final = re.compile(r"[\w.;:-]{1,64}")
_SHOWN: Final = 30


def folded(name: str) -> str:
    """Return a column's name without case, accents, blanks and punctuation."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    return "".join(one for one in plain if one.isalnum())


def columns_by_field(
    columns: Sequence[str], given: Mapping[str, str] | None = None, *, all_are_names: bool = True
) -> dict[str, tuple[str, ...]]:
    """Return the column of each field of a message; a time may be in two columns.

    A table with the texts of two messages in a row has a question and an answer instead of a
    content and a role.

    Args:
        columns: The names of the columns.
        given: Columns that the user names, by field.
        all_are_names: See `listed`.

    Raises:
        UnknownName: There is no such field or column.
    """
    found = {} if given is None else named_columns(columns, given, all_are_names=all_are_names)
    taken = {column for named in found.values() for column in named}
    by_name: dict[str, str] = {}
    for column in columns:
        if column not in taken:
            by_name.setdefault(folded(column), column)
            by_name.setdefault(folded(_without_unit(column)), column)
    for name in _lone_questions(by_name):
        del by_name[name]
    if not _DATA_IS_DATE & by_name.keys():
        by_name.pop("data", None)
    pair = _question_and_answer(found, by_name)
    found |= pair
    taken.update(column for named in pair.values() for column in named)
    for field, names in NAMES.items():
        if field in found or field in (("content", "role") if pair else _OF_PAIRS):
            continue
        own = [field] if field in columns and field not in taken else []
        named = own or [by_name[name] for name in names if name in by_name]
        if field == "timestamp" and not own:
            named = _date_and_time(by_name, named)
        elif field == "author" and "user_id" in columns:
            continue
        else:
            named = named[:1]
        named = [column for column in named if column not in taken]
        if named:
            found[field] = tuple(named)
            taken.update(named)
    return found


def has_texts(found: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether there is a column of texts, or there are two, of questions and answers."""
    return "content" in found or "question" in found


def _question_and_answer(
    found: Mapping[str, tuple[str, ...]], by_name: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return the columns of questions and of answers if a row has both, else nothing.

    Args:
        found: The columns that the user names, by field.
        by_name: The other columns by folded name.

    Raises:
        UnknownName: The user names one of the two, and the other is not known.
    """
    if "content" in found:
        return {}
    is_asked = any(name in found for name in _OF_PAIRS)
    pair = {}
    for field in _PAIR:
        named = [by_name[name] for name in NAMES[field] if name in by_name]
        pair[field] = found.get(field) or tuple(named[:1])
    if "question" not in found and pair["question"][:1] == (by_name.get("input"),):
        pair["question"] = tuple(by_name[name] for name in _TASK if name in by_name)
    texts = [name for name in NAMES["content"] if name in by_name]
    names_nobody = not any(
        name in by_name for field in ("role", "author") for name in NAMES[field]
    ) and not {"role", "author"}.intersection(found)
    if texts and texts[0] in _ONE_MESSAGE and names_nobody and not is_asked:
        pair["question"], texts = (by_name[texts[0]],), []
    missing = [field for field in _PAIR if not pair[field]]
    if missing and is_asked:
        raise UnknownName(
            f"The table has no column that is called like the {missing[0]} of a row: name it with "
            f"--map {missing[0]}=COLUMN."
        )
    return {} if missing or (texts and not is_asked) else pair


def are_own(found: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether all columns have the names of this package's own tables."""
    return all(name in OWN and columns == (name,) for name, columns in found.items())


def says_utc(column: str) -> bool:
    """Return whether the name of a column says that its times are UTC."""
    return _UTC.search(column) is not None


def listed(columns: Iterable[str], *, all_are_names: bool) -> str:
    """Return the names of columns for an error.

    Args:
        columns: The names.
        all_are_names: Whether they are names; without a header the first line of a file is a
            message, which an error must not quote.
    """
    shown = [
        one for one in columns if (may_be_name(one) if all_are_names else _SHORT.fullmatch(one))
    ]
    more = ", …" if len(shown) > _SHOWN else ""
    return (", ".join(shown[:_SHOWN]) or "none") + more


def _without_unit(column: str) -> str:
    shorter = _UNITS.sub("", column)
    return shorter or column


def _lone_questions(names: Iterable[str]) -> set[str]:
    """Return the names that are the only question of their language."""
    asked = (questions.intersection(names) for questions in _QUESTIONS)
    lone = {name for questions in asked if len(questions) == 1 for name in questions}
    return lone - {"when"}  # which always asks for a time


def _date_and_time(by_name: dict[str, str], named: list[str]) -> list[str]:
    """Return the one column of times, or the columns of date and time."""
    best = named[:1]
    date = next((by_name[name] for name in _DATES if name in by_name), None)
    time = next((by_name[name] for name in _TIMES if name in by_name), None)
    if (
        date is not None
        and time is not None
        and date != time
        and (not best or best[0] in (date, time))
    ):
        return [date, time]
    return best


def check_fields(given: Mapping[str, str]) -> dict[str, str]:
    """Return columns by field, with the full names of the fields.

    Raises:
        UnknownName: There is no such field.
        InvalidValue: A field is mapped twice, or has no column.
    """
    found: dict[str, str] = {}
    for name, column in given.items():
        field = _ALIASES.get(name.strip().casefold(), name.strip().casefold())
        if field not in NAMES:
            end = did_you_mean(name, (*NAMES, *_ALIASES), f"; the fields are {', '.join(NAMES)}.")
            raise UnknownName(f"A message has no field {name!r}{end}")
        if field in found:
            raise InvalidValue(f"The field {field} is mapped twice; name one column.")
        if not column.strip():
            raise InvalidValue(f"The field {field} is mapped to no column; name one.")
        found[field] = column
    if "content" in found and not found.keys().isdisjoint(_OF_PAIRS):
        raise InvalidValue("A row is one message (content) or two (question and answer).")
    return found


def named_columns(
    columns: Sequence[str], given: Mapping[str, str], *, all_are_names: bool = True
) -> dict[str, tuple[str, ...]]:
    """Return the columns that the user names, by field.

    Args:
        columns: The names of the columns.
        given: Columns that the user names, by field.
        all_are_names: See `listed`.

    Raises:
        UnknownName: There is no such field or column.
        InvalidValue: A field has too many columns, or another one excludes it.
    """
    found: dict[str, tuple[str, ...]] = {}
    for field, column in check_fields(given).items():
        is_one = column in columns or field not in ("timestamp", "question")
        parts = [column] if is_one else column.split("+")
        if len(parts) > 2:  # noqa: PLR2004
            raise InvalidValue(
                "A time or a question is in one column or in two, such as timestamp=Date+Time."
            )
        found[field] = tuple(
            _existing(columns, part, all_are_names=all_are_names) for part in parts
        )
    return found


def _existing(columns: Sequence[str], name: str, *, all_are_names: bool) -> str:
    if name in columns:
        return name
    similar = [column for column in columns if folded(column) == folded(name.strip())]
    if len(similar) == 1:
        return similar[0]
    names = f"Its columns are {listed(columns, all_are_names=all_are_names)}."
    guess = did_you_mean(name.strip(), columns, ".")
    raise UnknownName(f"The file has no column {name.strip()!r}{guess} {names}")

"""The view `mart.extras`: emoji, reactions, links, mentions, attachments and edits of messages."""

from __future__ import annotations

from typing import Final

from aico_lab.messages.metadata import ATTACHMENTS, EDITED_AT, MEDIA, MENTIONS, REACTIONS

_TONES: Final = r"\x{1F3FB}-\x{1F3FF}"

_AS_TEXT: Final = (
    r"\x{A9}\x{AE}\x{203C}\x{2049}\x{2122}\x{2139}\x{2194}-\x{2199}\x{21A9}\x{21AA}\x{2328}"
    r"\x{23CF}\x{24C2}\x{25AA}\x{25AB}\x{25B6}\x{25C0}\x{25FB}\x{25FC}\x{2640}\x{2642}\x{2702}"
    r"\x{270F}\x{2712}\x{2714}\x{2716}\x{271D}\x{2721}\x{2733}\x{2734}\x{2747}\x{27A1}\x{2934}"
    r"\x{2935}\x{2B05}-\x{2B07}\x{3030}\x{303D}\x{3297}\x{3299}"
)
"""Characters that are emoji only before the variation selector 16."""

_AS_EMOJI: Final = (
    r"\x{231A}\x{231B}\x{23E9}-\x{23F3}\x{23F8}-\x{23FA}\x{25FD}\x{25FE}\x{2600}-\x{2604}\x{260E}"
    r"\x{2611}\x{2614}\x{2615}\x{2618}\x{261D}\x{2620}\x{2622}\x{2623}\x{2626}\x{262A}\x{262E}"
    r"\x{262F}\x{2638}-\x{263A}\x{2648}-\x{2653}\x{265F}\x{2660}\x{2663}\x{2665}\x{2666}\x{2668}"
    r"\x{267B}\x{267E}\x{267F}\x{2692}-\x{2697}\x{2699}\x{269B}\x{269C}\x{26A0}\x{26A1}\x{26A7}"
    r"\x{26AA}\x{26AB}\x{26B0}\x{26B1}\x{26BD}\x{26BE}\x{26C4}\x{26C5}\x{26C8}\x{26CE}\x{26CF}"
    r"\x{26D1}\x{26D3}\x{26D4}\x{26E9}\x{26EA}\x{26F0}-\x{26F5}\x{26F7}-\x{26FA}\x{26FD}\x{2705}"
    r"\x{2708}-\x{270D}\x{2728}\x{2744}\x{274C}\x{274E}\x{2753}-\x{2755}\x{2757}\x{2763}\x{2764}"
    r"\x{2795}-\x{2797}\x{27B0}\x{27BF}\x{2B1B}\x{2B1C}\x{2B50}\x{2B55}\x{1F004}\x{1F0CF}"
    r"\x{1F170}\x{1F171}\x{1F17E}\x{1F17F}\x{1F18E}\x{1F191}-\x{1F19A}\x{1F201}\x{1F202}\x{1F21A}"
    r"\x{1F22F}\x{1F232}-\x{1F23A}\x{1F250}\x{1F251}\x{1F300}-\x{1F3FA}\x{1F400}-\x{1F64F}"
    r"\x{1F680}-\x{1F6FC}\x{1F7E0}-\x{1F7F0}\x{1F90C}-\x{1F9FF}\x{1FA70}-\x{1FAFF}"
)
"""Characters that are emoji alone, by Unicode or by common use, such as the heart."""

EMOJI: Final = (
    r"[\x{1F1E6}-\x{1F1FF}]{2}"  # a flag
    r"|[0-9#*]\x{FE0F}?\x{20E3}"  # a keycap
    rf"|(?:[{_AS_TEXT}]\x{{FE0F}}|[{_AS_EMOJI}]\x{{FE0F}}?)[{_TONES}]?[\x{{E0020}}-\x{{E007F}}]*"
    rf"(?:\x{{200D}}[{_AS_TEXT}{_AS_EMOJI}]\x{{FE0F}}?[{_TONES}]?)*"
)
"""An emoji, also one of several characters: a flag, a family, one with a skin tone."""

_HOST: Final = r"[\p{L}\p{N}](?:[\p{L}\p{N}_.-]*[\p{L}\p{N}])?"
_BEYOND_ADDRESS: Final = (
    r"\s<>\"\[\]{}|\\^`\x{3000}-\x{303F}\x{FF00}-\x{FF0F}"  # and punctuation of East Asia
)
LINK: Final = (
    rf"(?:\bhttps?://(?:[^\s/?#@]*@)?(?:www\.)?|\bwww\.)({_HOST})"
    rf"(?:[:/?#][^{_BEYOND_ADDRESS}]*)?"
)
"""A web address in lower case, with another one in its path or query; its group is the domain
without `www.`, user, port and path."""

MENTION: Final = r"(?:^|[\s(\[{,;:>\"'])@([\p{L}\p{N}_](?:[\p{L}\p{N}_.-]*[\p{L}\p{N}_])?)"
"""A mention in a text; its group is the name. The @ of an e-mail or web address is none."""

TIME: Final = "[0-9]{1,2}(?:[.h][0-9]{2})?(?:[ap]m|h|uhr)?"
"""A time of day, such as '5pm' or '17.30', which is no name after an @."""

_WITHOUT_TONE: Final = rf"regexp_replace(found, '[{_TONES}\x{{FE0F}}]', '', 'g')"
_SAME_EMOJI: Final = f"""CASE WHEN length({_WITHOUT_TONE}) = 1 AND ord({_WITHOUT_TONE}) < 126976
        THEN {_WITHOUT_TONE} || chr(65039) ELSE {_WITHOUT_TONE} END"""
"""SQL for an emoji without skin tone, spelled in one way: characters below U+1F000, which may be
text, with the variation selector 16."""


def _listed(name: str) -> str:
    return f"""(
            SELECT id, metadata FROM raw.messages
            WHERE contains(metadata, '"{name}"') AND json_type(metadata, '$.{name}') = 'ARRAY'
        ) r, json_each(r.metadata, '$.{name}') e"""


def _text(*names: str) -> str:
    """Return SQL for a text in a list: itself, or the first of these names of an object."""
    named = ", ".join(f"e.value->>'$.{name}'" for name in names)
    return f"""CASE json_type(e.value) WHEN 'VARCHAR' THEN e.value->>'$'
                WHEN 'OBJECT' THEN coalesce({named}) END"""


EXTRAS: Final = f"""CREATE OR REPLACE VIEW mart.extras AS
    WITH
        emoji AS (
            SELECT id, unnest(regexp_extract_all(content, $x${EMOJI}$x$)) AS found
            FROM raw.messages WHERE strlen(content) > length(content)
        ),
        reactions AS (
            SELECT
                r.id, {_text("emoji")} AS found,
                coalesce(TRY_CAST(e.value->>'$.count' AS INTEGER), 1) AS n
            FROM {_listed(REACTIONS)}
        ),
        links AS (
            SELECT id, unnest(regexp_extract_all(lower(content), $x${LINK}$x$, 1)) AS found
            FROM raw.messages
            WHERE contains(content, '://') OR contains(content, 'www.')
                OR contains(content, 'WWW.')
        ),
        named_mentions AS (
            SELECT r.id, lower({_text("user_id", "id", "name")}) AS found
            FROM {_listed(MENTIONS)}
        ),
        mentions AS (
            FROM named_mentions WHERE found <> ''
            UNION ALL
            FROM (
                SELECT id, unnest(regexp_extract_all(lower(content), $x${MENTION}$x$, 1)) AS found
                FROM raw.messages ANTI JOIN named_mentions USING (id) WHERE contains(content, '@')
            ) WHERE NOT regexp_full_match(found, $x${TIME}$x$)
        ),
        attachments AS (
            SELECT r.id, lower({_text("kind")}) AS found FROM {_listed(ATTACHMENTS)}
            UNION ALL
            SELECT id, lower(metadata->>'$.{MEDIA}') FROM raw.messages
            WHERE contains(metadata, '"{MEDIA}"') AND json_type(metadata, '$.{MEDIA}') = 'VARCHAR'
                AND json_type(metadata, '$.{ATTACHMENTS}') IS DISTINCT FROM 'ARRAY'
        ),
        called AS (
            SELECT called, min(user_id) AS mentioned_id FROM (
                SELECT lower(user_id) AS called, user_id FROM mart.people
                UNION SELECT lower(name), user_id FROM mart.people
            ) GROUP BY called HAVING count(DISTINCT user_id) = 1
        ),
        found AS (
            SELECT id, 'emoji' AS kind, {_SAME_EMOJI} AS item, 1 AS n, false AS is_text,
                NULL AS mentioned_id FROM emoji
            UNION ALL
            SELECT id, 'reaction',
                CASE WHEN regexp_full_match(found, $x${EMOJI}$x$) THEN {_SAME_EMOJI} ELSE found END,
                n, NOT regexp_full_match(found, $x${EMOJI}$x$), NULL
            FROM reactions WHERE n > 0 AND found <> ''
            UNION ALL
            SELECT id, 'link', found, 1, true, NULL FROM links
            UNION ALL
            SELECT id, 'mention', found, 1, mentioned_id IS NULL, mentioned_id
            FROM mentions LEFT JOIN called ON called = found
            UNION ALL
            SELECT id, 'attachment', found, 1,
                NOT regexp_full_match(found, '[a-z][a-z _-]{{0,19}}'), NULL
            FROM attachments WHERE found <> ''
            UNION ALL
            SELECT id, 'edit', 'edited', 1, false, NULL FROM raw.messages
            WHERE contains(metadata, '"{EDITED_AT}"')
                AND json_type(metadata, '$.{EDITED_AT}') NOT IN ('NULL', 'BOOLEAN')
        )
    SELECT
        id, conversation_id, channel_id, user_id, role, ts_ms, kind, left(item, 80) AS item,
        n::BIGINT AS n, is_text, mentioned_id
    FROM found JOIN mart.messages USING (id)"""
"""One row for each emoji, link, mention, kind of reaction or attachment and edit of a message."""

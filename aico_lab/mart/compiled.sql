-- columns of messages
id BIGINT,
conversation_id VARCHAR,
channel_id VARCHAR,
user_id VARCHAR,
role VARCHAR,
ts_ms BIGINT,
msg_idx BIGINT,
turn_idx BIGINT,
session_idx BIGINT,
gap_ms BIGINT,
reply_ms BIGINT,
n_words BIGINT,
n_chars BIGINT,
is_question BOOLEAN,
sentiment_score DOUBLE

-- columns of turns
conversation_id VARCHAR,
turn_idx BIGINT,
session_idx BIGINT,
channel_id VARCHAR,
user_id VARCHAR,
role VARCHAR,
started_ms BIGINT,
ended_ms BIGINT,
reply_ms BIGINT,
n_messages BIGINT,
n_words BIGINT,
n_unsegmented BIGINT,
n_chars BIGINT,
n_questions BIGINT,
n_scored BIGINT,
sentiment_sum DOUBLE

-- columns of sessions
conversation_id VARCHAR,
session_idx BIGINT,
channel_id VARCHAR,
user_id VARCHAR,
started_ms BIGINT,
ended_ms BIGINT,
started_by VARCHAR,
ended_by VARCHAR,
n_turns BIGINT,
n_user_messages BIGINT,
n_user_words BIGINT,
n_messages BIGINT,
n_words BIGINT,
n_unsegmented BIGINT,
n_chars BIGINT,
n_questions BIGINT,
n_scored BIGINT,
sentiment_sum DOUBLE

-- columns of daily
conversation_id VARCHAR,
channel_id VARCHAR,
user_id VARCHAR,
role VARCHAR,
day BIGINT,
n_messages BIGINT,
n_words BIGINT,
n_unsegmented BIGINT,
n_chars BIGINT,
n_questions BIGINT,
n_scored BIGINT,
sentiment_sum DOUBLE

-- query of places
SELECT
  "t2"."id",
  "t2"."conversation",
  "t2"."msg_idx",
  "t2"."gap_ms",
  "t2"."reply_ms",
  MAX("t2"."named") OVER (
    PARTITION BY "t2"."conversation"
    ORDER BY "t2"."msg_idx" ASC
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
  ) % 4294967296 AS "person",
  SUM("t2"."starts_session") OVER (
    PARTITION BY "t2"."conversation"
    ORDER BY "t2"."msg_idx" ASC
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
  ) - 1 AS "session_idx",
  SUM("t2"."starts_turn") OVER (
    PARTITION BY "t2"."conversation"
    ORDER BY "t2"."msg_idx" ASC
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
  ) - 1 AS "turn_idx"
FROM (
  SELECT
    "t1"."id",
    "t1"."conversation",
    "t1"."msg_idx",
    "t1"."gap_ms",
    CASE
      WHEN "t1"."by_user" OR (
        "t1"."msg_idx" = 0
      )
      THEN (
        "t1"."msg_idx" * 4294967296
      ) + "t1"."author"
      ELSE CAST(NULL AS BIGINT)
    END AS "named",
    CAST((
      "t1"."gap_ms" IS NULL
    ) OR (
      "t1"."gap_ms" > 1800000
    ) AS BIGINT) AS "starts_session",
    CAST((
      "t1"."gap_ms" IS NULL
    )
    OR (
      "t1"."gap_ms" > 1800000
    )
    OR "t1"."answers"
    OR (
      "t1"."by_user" AND "t1"."other_author"
    ) AS BIGINT) AS "starts_turn",
    CASE
      WHEN (
        "t1"."gap_ms" IS NULL
      )
      OR (
        "t1"."gap_ms" > 1800000
      )
      OR "t1"."answers"
      OR (
        "t1"."by_user" AND "t1"."other_author"
      )
      THEN COALESCE(
        "t1"."response_ms",
        CASE WHEN "t1"."answers" THEN "t1"."gap_ms" ELSE CAST(NULL AS BIGINT) END
      )
      ELSE CAST(NULL AS BIGINT)
    END AS "reply_ms"
  FROM (
    SELECT
      "t0"."id",
      "t0"."conversation",
      "t0"."author",
      "t0"."by_user",
      "t0"."ts_us",
      "t0"."ts_ms",
      "t0"."response_ms",
      ROW_NUMBER() OVER (
        PARTITION BY "t0"."conversation"
        ORDER BY "t0"."ts_us" ASC, "t0"."id" ASC
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
      ) - 1 AS "msg_idx",
      "t0"."ts_ms" - LAG("t0"."ts_ms") OVER (
        PARTITION BY "t0"."conversation"
        ORDER BY "t0"."ts_us" ASC, "t0"."id" ASC
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
      ) AS "gap_ms",
      "t0"."by_user" <> LAG("t0"."by_user") OVER (
        PARTITION BY "t0"."conversation"
        ORDER BY "t0"."ts_us" ASC, "t0"."id" ASC
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
      ) AS "answers",
      "t0"."author" <> LAG("t0"."author") OVER (
        PARTITION BY "t0"."conversation"
        ORDER BY "t0"."ts_us" ASC, "t0"."id" ASC
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
      ) AS "other_author"
    FROM "slice" AS "t0"
  ) AS "t1"
) AS "t2"

-- query of turns
SELECT
  "t0"."conversation_id",
  "t0"."turn_idx",
  MIN("t0"."session_idx") AS "session_idx",
  MIN("t0"."channel_id") AS "channel_id",
  MIN("t0"."user_id") AS "user_id",
  MIN("t0"."role") AS "role",
  MIN("t0"."ts_ms") AS "started_ms",
  MAX("t0"."ts_ms") AS "ended_ms",
  MIN("t0"."reply_ms") AS "reply_ms",
  COUNT(*) AS "n_messages",
  COALESCE(SUM("t0"."n_words"), 0) AS "n_words",
  SUM(CAST("t0"."n_words" IS NULL AS BIGINT)) AS "n_unsegmented",
  SUM("t0"."n_chars") AS "n_chars",
  SUM(CAST("t0"."is_question" AS BIGINT)) AS "n_questions",
  COUNT("t0"."sentiment_score") AS "n_scored",
  COALESCE(SUM("t0"."sentiment_score"), 0.0) AS "sentiment_sum"
FROM "slice" AS "t0"
GROUP BY
  1,
  2

-- query of sessions
SELECT
  "t0"."conversation_id",
  "t0"."session_idx",
  MIN("t0"."channel_id") AS "channel_id",
  COALESCE(MIN("t0"."user_id") FILTER(WHERE
    "t0"."role" = 'user'), MIN("t0"."user_id")) AS "user_id",
  MIN("t0"."ts_ms") AS "started_ms",
  MAX("t0"."ts_ms") AS "ended_ms",
  CASE
    WHEN COALESCE(
      MIN("t0"."msg_idx") FILTER(WHERE
        "t0"."role" = 'user') = MIN("t0"."msg_idx"),
      FALSE
    )
    THEN 'user'
    ELSE 'assistant'
  END AS "started_by",
  CASE
    WHEN COALESCE(
      MAX("t0"."msg_idx") FILTER(WHERE
        "t0"."role" = 'user') = MAX("t0"."msg_idx"),
      FALSE
    )
    THEN 'user'
    ELSE 'assistant'
  END AS "ended_by",
  (
    MAX("t0"."turn_idx") - MIN("t0"."turn_idx")
  ) + 1 AS "n_turns",
  COUNT("t0"."msg_idx") FILTER(WHERE
    "t0"."role" = 'user') AS "n_user_messages",
  COALESCE(SUM("t0"."n_words") FILTER(WHERE
    "t0"."role" = 'user'), 0) AS "n_user_words",
  COUNT(*) AS "n_messages",
  COALESCE(SUM("t0"."n_words"), 0) AS "n_words",
  SUM(CAST("t0"."n_words" IS NULL AS BIGINT)) AS "n_unsegmented",
  SUM("t0"."n_chars") AS "n_chars",
  SUM(CAST("t0"."is_question" AS BIGINT)) AS "n_questions",
  COUNT("t0"."sentiment_score") AS "n_scored",
  COALESCE(SUM("t0"."sentiment_score"), 0.0) AS "sentiment_sum"
FROM "slice" AS "t0"
GROUP BY
  1,
  2

-- query of daily
SELECT
  "t1"."conversation_id",
  "t1"."channel_id",
  "t1"."user_id",
  "t1"."role",
  "t1"."day",
  COUNT(*) AS "n_messages",
  COALESCE(SUM("t1"."n_words"), 0) AS "n_words",
  SUM(CAST("t1"."n_words" IS NULL AS BIGINT)) AS "n_unsegmented",
  SUM("t1"."n_chars") AS "n_chars",
  SUM(CAST("t1"."is_question" AS BIGINT)) AS "n_questions",
  COUNT("t1"."sentiment_score") AS "n_scored",
  COALESCE(SUM("t1"."sentiment_score"), 0.0) AS "sentiment_sum"
FROM (
  SELECT
    "t0"."id",
    "t0"."conversation_id",
    "t0"."channel_id",
    "t0"."user_id",
    "t0"."role",
    "t0"."ts_ms",
    "t0"."msg_idx",
    "t0"."turn_idx",
    "t0"."session_idx",
    "t0"."gap_ms",
    "t0"."reply_ms",
    "t0"."n_words",
    "t0"."n_chars",
    "t0"."is_question",
    "t0"."sentiment_score",
    CAST(FLOOR((
      "t0"."ts_ms"
    ) / (
      86400000
    )) AS BIGINT) AS "day"
  FROM "slice" AS "t0"
) AS "t1"
GROUP BY
  1,
  2,
  3,
  4,
  5

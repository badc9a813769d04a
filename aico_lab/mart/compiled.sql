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
recorded_ms BIGINT,
is_estimated BOOLEAN,
reply_is_estimated BOOLEAN,
n_words BIGINT,
n_chars BIGINT,
is_question BOOLEAN,
sentiment_score DOUBLE

-- columns of turns
conversation_id VARCHAR,
turn_idx BIGINT,
session_idx BIGINT,
user_id VARCHAR,
role VARCHAR,
channel_id VARCHAR,
started_ms BIGINT,
ended_ms BIGINT,
reply_ms BIGINT,
recorded_ms BIGINT,
reply_is_estimated BOOLEAN,
end_is_estimated BOOLEAN,
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

-- query of turns
SELECT
  "t0"."conversation_id",
  "t0"."turn_idx",
  ANY_VALUE("t0"."session_idx") AS "session_idx",
  ANY_VALUE("t0"."user_id") AS "user_id",
  ANY_VALUE("t0"."role") AS "role",
  MIN("t0"."channel_id") AS "channel_id",
  MIN("t0"."ts_ms") AS "started_ms",
  MAX("t0"."ts_ms") AS "ended_ms",
  MIN("t0"."reply_ms") AS "reply_ms",
  MIN("t0"."recorded_ms") AS "recorded_ms",
  BOOL_OR(CAST("t0"."reply_is_estimated" AS BOOLEAN)) AS "reply_is_estimated",
  FIRST("t0"."is_estimated" ORDER BY "t0"."msg_idx" DESC) AS "end_is_estimated",
  COUNT(*) AS "n_messages",
  COALESCE(SUM("t0"."n_words"), 0) AS "n_words",
  SUM(CAST("t0"."n_words" IS NULL AS BIGINT)) AS "n_unsegmented",
  SUM("t0"."n_chars") AS "n_chars",
  SUM(CAST("t0"."is_question" AS BIGINT)) AS "n_questions",
  COUNT("t0"."sentiment_score") AS "n_scored",
  COALESCE(
    LIST_SUM(
      LIST_SORT(
        ARRAY_AGG("t0"."sentiment_score") FILTER(WHERE
          "t0"."sentiment_score" IS NOT NULL)
      )
    ),
    0.0
  ) AS "sentiment_sum"
FROM "slice" AS "t0"
GROUP BY
  1,
  2

-- query of sessions
SELECT
  "t0"."conversation_id",
  "t0"."session_idx",
  MIN("t0"."channel_id") AS "channel_id",
  COALESCE(
    FIRST("t0"."user_id" ORDER BY "t0"."msg_idx") FILTER(WHERE
      (
        "t0"."role" = 'user'
      ) AND (
        "t0"."user_id" IS NOT NULL
      )),
    FIRST("t0"."user_id" ORDER BY "t0"."msg_idx") FILTER(WHERE
      "t0"."user_id" IS NOT NULL)
  ) AS "user_id",
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
  COALESCE(
    LIST_SUM(
      LIST_SORT(
        ARRAY_AGG("t0"."sentiment_score") FILTER(WHERE
          "t0"."sentiment_score" IS NOT NULL)
      )
    ),
    0.0
  ) AS "sentiment_sum"
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
  COALESCE(
    LIST_SUM(
      LIST_SORT(
        ARRAY_AGG("t1"."sentiment_score") FILTER(WHERE
          "t1"."sentiment_score" IS NOT NULL)
      )
    ),
    0.0
  ) AS "sentiment_sum"
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
    "t0"."recorded_ms",
    "t0"."is_estimated",
    "t0"."reply_is_estimated",
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

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
  "t4"."id",
  "t4"."conversation",
  "t4"."person",
  "t4"."msg_idx",
  "t4"."turn_idx",
  "t4"."session_idx",
  "t4"."gap_ms",
  "t4"."reply_ms",
  CASE
    WHEN "t4"."reply_ms" IS NOT NULL
    THEN "t4"."response_ms"
    ELSE CAST(NULL AS BIGINT)
  END AS "recorded_ms"
FROM (
  SELECT
    "t3"."id",
    "t3"."conversation",
    "t3"."author",
    "t3"."by_user",
    "t3"."addressed",
    "t3"."earlier",
    "t3"."ts_us",
    "t3"."ts_ms",
    "t3"."response_ms",
    "t3"."place",
    "t3"."gap_ms",
    "t3"."other_side",
    "t3"."named",
    "t3"."named_before",
    "t3"."writer",
    "t3"."by_users",
    "t3"."person",
    "t3"."counts",
    "t3"."starts_session",
    "t3"."starts_turn",
    CASE
      WHEN "t3"."by_user" AND (
        "t3"."by_users" = 1
      )
      THEN "t3"."gap_ms"
      WHEN "t3"."by_user" <> LAG("t3"."by_user") OVER (
        PARTITION BY "t3"."conversation", "t3"."person"
        ORDER BY "t3"."place" ASC
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
      )
      THEN "t3"."ts_ms" - LAG("t3"."ts_ms") OVER (
        PARTITION BY "t3"."conversation", "t3"."person"
        ORDER BY "t3"."place" ASC
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
      )
      ELSE CAST(NULL AS BIGINT)
    END AS "reply_ms",
    SUM("t3"."counts") OVER (
      PARTITION BY "t3"."conversation"
      ORDER BY "t3"."place" ASC
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) - 1 AS "msg_idx",
    SUM("t3"."starts_session") OVER (
      PARTITION BY "t3"."conversation"
      ORDER BY "t3"."place" ASC
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) - 1 AS "session_idx",
    SUM("t3"."starts_turn") OVER (
      PARTITION BY "t3"."conversation"
      ORDER BY "t3"."place" ASC
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) - 1 AS "turn_idx"
  FROM (
    SELECT
      "t2"."id",
      "t2"."conversation",
      "t2"."author",
      "t2"."by_user",
      "t2"."addressed",
      "t2"."earlier",
      "t2"."ts_us",
      "t2"."ts_ms",
      "t2"."response_ms",
      "t2"."place",
      "t2"."gap_ms",
      "t2"."other_side",
      "t2"."named",
      "t2"."named_before",
      "t2"."writer",
      "t2"."by_users",
      COALESCE("t2"."named", "t2"."writer") AS "person",
      CAST(NOT (
        "t2"."earlier"
      ) AS BIGINT) AS "counts",
      CAST((
        (
          "t2"."gap_ms" IS NULL
        ) OR (
          "t2"."gap_ms" > 1800000
        )
      )
      AND NOT (
        "t2"."earlier"
      ) AS BIGINT) AS "starts_session",
      CAST((
        (
          "t2"."gap_ms" IS NULL
        )
        OR (
          "t2"."gap_ms" > 1800000
        )
        OR "t2"."other_side"
        OR (
          COALESCE("t2"."named", "t2"."writer") <> COALESCE("t2"."named_before", "t2"."writer")
        )
      )
      AND NOT (
        "t2"."earlier"
      ) AS BIGINT) AS "starts_turn"
    FROM (
      SELECT
        "t1"."id",
        "t1"."conversation",
        "t1"."author",
        "t1"."by_user",
        "t1"."addressed",
        "t1"."earlier",
        "t1"."ts_us",
        "t1"."ts_ms",
        "t1"."response_ms",
        "t1"."place",
        "t1"."gap_ms",
        "t1"."other_side",
        "t1"."named",
        "t1"."named_before",
        MAX(
          CASE
            WHEN "t1"."by_user" OR (
              "t1"."place" = 0
            )
            THEN (
              "t1"."place" * 4294967296
            ) + "t1"."author"
            ELSE CAST(NULL AS BIGINT)
          END
        ) OVER (
          PARTITION BY "t1"."conversation"
          ORDER BY "t1"."place" ASC
          ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) % 4294967296 AS "writer",
        SUM(CAST("t1"."by_user" AS BIGINT)) OVER (
          PARTITION BY "t1"."conversation"
          ORDER BY "t1"."place" ASC
          ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS "by_users"
      FROM (
        SELECT
          "t0"."id",
          "t0"."conversation",
          "t0"."author",
          "t0"."by_user",
          "t0"."addressed",
          "t0"."earlier",
          "t0"."ts_us",
          "t0"."ts_ms",
          "t0"."response_ms",
          ROW_NUMBER() OVER (
            PARTITION BY "t0"."conversation"
            ORDER BY "t0"."ts_us" ASC, "t0"."id" ASC
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
          ) - 1 AS "place",
          "t0"."ts_ms" - LAG("t0"."ts_ms") OVER (
            PARTITION BY "t0"."conversation"
            ORDER BY "t0"."ts_us" ASC, "t0"."id" ASC
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
          ) AS "gap_ms",
          "t0"."by_user" <> LAG("t0"."by_user") OVER (
            PARTITION BY "t0"."conversation"
            ORDER BY "t0"."ts_us" ASC, "t0"."id" ASC
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
          ) AS "other_side",
          CASE
            WHEN "t0"."by_user" OR "t0"."addressed"
            THEN "t0"."author"
            ELSE CAST(NULL AS BIGINT)
          END AS "named",
          LAG(
            CASE
              WHEN "t0"."by_user" OR "t0"."addressed"
              THEN "t0"."author"
              ELSE CAST(NULL AS BIGINT)
            END
          ) OVER (
            PARTITION BY "t0"."conversation"
            ORDER BY "t0"."ts_us" ASC, "t0"."id" ASC
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
          ) AS "named_before"
        FROM "slice" AS "t0"
      ) AS "t1"
    ) AS "t2"
  ) AS "t3"
) AS "t4"
WHERE
  NOT (
    "t4"."earlier"
  )

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
    "t0"."recorded_ms",
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

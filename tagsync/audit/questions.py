"""Eleven common questions about the history, as SQL for SQLite 3.32 or newer.

``docs/questions.md`` and ``tagsync web`` show these questions. If a parameter is empty or not
bound, the SQL uses the default that the explanation gives. A question can therefore be pasted into
``sqlite3`` without any edit.

The time that a query takes is proportional to the number of rows that it reads. For this reason, a
query finds the earlier state of a tag by a look-up in an index, and never joins the history with
itself.
"""

from typing import Final

import msgspec


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a question.

    Attributes:
        name: The name in the SQL, without the colon before it.
        label: The name for people, in a form.
        hint: The expected value, and the meaning of an empty one, in a sentence or two.
        default: The number that the SQL uses if the parameter is empty. None if the value of the
            parameter is text, which has no default.
        example: An example of a text. None if the value is a number.
        repository: Whether the value is the full name of a repository.
        required: Whether the question has no answer without a value.
    """

    name: str
    label: str
    hint: str
    default: int | None = None
    example: str | None = None
    repository: bool = False
    required: bool = False


class Question(msgspec.Struct, frozen=True):
    """A saved question, and the SQL that answers it.

    Attributes:
        slug: The name of the question in a URL.
        title: The text of the question.
        explanation: The meaning of a row of the answer, in a few sentences.
        empty: The answer without any row, in a sentence.
        sql: One SELECT statement, without a semicolon at its end.
        parameters: The parameters of the SQL, in the order in which a form shows them.
        examined: One SELECT statement with the same parameters, whose single row says how much of
            the record the answer is about: ``number``, and ``since``, the time of the oldest one.
            In an empty record ``since`` is NULL. If ``examined`` is None, the explanation says
            everything.
        all_of_it: The parameters with which the answer is about the whole record. Empty without
            ``examined``.
    """

    slug: str
    title: str
    explanation: str
    empty: str
    sql: str
    parameters: tuple[Parameter, ...] = ()
    examined: str | None = None
    all_of_it: tuple[tuple[str, str], ...] = ()


_DAYS_OR_ALL: Final = Parameter(
    "days",
    "Days",
    "How many days to look back. Empty: 7. 0: the whole history, which may be slow.",
    7,
)

QUESTIONS: Final = (
    Question(
        "moved-last-week",
        "What moved last week?",
        "A tag that moved to another digest within the last `:days` days (7 if left empty). The"
        " move happened after `not_before` and no later than `observed_at`.",
        "No tag moved in this time.",
        """\
SELECT repository, tag, old_digest, new_digest, not_before, observed_at
FROM change_log
WHERE moved
  AND observed_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now',
                             '-' || coalesce(nullif(:days, ''), 7) || ' days')
ORDER BY observed_at DESC, id DESC""",
        (Parameter("days", "Days", "How many days to look back. Empty: 7.", 7),),
    ),
    Question(
        "moved-more-than-once",
        "Which tags moved more than once?",
        "A tag that moved to another digest at least twice within the last `:days` days (7 if left"
        " empty, the whole history if 0), with the times at which the first and the last of these"
        " moves were observed. A move also counts if the tag was deleted before it was added with"
        " another digest.",
        "No tag moved more than once in this time.",
        """\
SELECT repository, tag, count(*) AS moves,
       min(observed_at) AS first_observed_at, max(observed_at) AS last_observed_at
FROM tag_moves
WHERE observed_at > iif(coalesce(nullif(:days, ''), 7) + 0 = 0, '',
                        strftime('%Y-%m-%dT%H:%M:%fZ', 'now',
                                 '-' || coalesce(nullif(:days, ''), 7) || ' days'))
GROUP BY +repository_id, tag  -- with +, SQLite uses the index of the times
HAVING count(*) > 1
ORDER BY moves DESC, repository, tag""",
        (_DAYS_OR_ALL,),
    ),
    Question(
        "rollbacks",
        "Which tags were rolled back?",
        "A tag that moved back to an earlier digest within the last `:days` days (7 if left empty,"
        " the whole history if 0). Of the moves in this time, the newest `:moves` are examined"
        " (4,000 if left empty, all if 0). The tag had already begun to point to that digest at"
        " `came_before_at`, and returned to it after `not_before` and no later than `observed_at`."
        " Before it returned, the tag last pointed to the digest `instead_of`.",
        "None of the examined moves led back to an earlier digest.",
        """\
SELECT repository, tag, new_digest AS digest, previous_digest AS instead_of,
       (SELECT max(observed_at) FROM changes AS p
        WHERE p.new_digest = m.new_digest AND p.old_digest IS NOT p.new_digest
          -- with +, SQLite uses the index of the digests
          AND +p.repository_id = m.repository_id AND +p.tag = m.tag AND p.id < m.id
       ) AS came_before_at,
       not_before, observed_at
FROM (
    SELECT * FROM tag_moves
    WHERE observed_at > iif(coalesce(nullif(:days, ''), 7) + 0 = 0, '',
                            strftime('%Y-%m-%dT%H:%M:%fZ', 'now',
                                     '-' || coalesce(nullif(:days, ''), 7) || ' days'))
    ORDER BY observed_at DESC, id DESC
    LIMIT coalesce(nullif(CAST(coalesce(nullif(:moves, ''), 4000) AS INTEGER), 0), -1)
) AS m
WHERE came_before_at IS NOT NULL
ORDER BY observed_at DESC, id DESC""",
        (
            _DAYS_OR_ALL,
            Parameter(
                "moves",
                "Moves",
                "How many of the newest moves to examine. Empty: 4,000. 0: all, which takes about"
                " a second for every 24,000.",
                4000,
            ),
        ),
        """\
SELECT count(*) AS number, min(observed_at) AS since
FROM (
    SELECT * FROM tag_moves
    WHERE observed_at > iif(coalesce(nullif(:days, ''), 7) + 0 = 0, '',
                            strftime('%Y-%m-%dT%H:%M:%fZ', 'now',
                                     '-' || coalesce(nullif(:days, ''), 7) || ' days'))
    ORDER BY observed_at DESC, id DESC
    LIMIT coalesce(nullif(CAST(coalesce(nullif(:moves, ''), 4000) AS INTEGER), 0), -1)
)""",
        (("days", "0"), ("moves", "0")),
    ),
    Question(
        "tags-with-layer",
        "Which tags contain this layer?",
        "A tag that points now to an image with the layer `:layer` (the whole digest). If the image"
        " is an index, it counts if one of its platforms has the layer and the manifest of that"
        " platform is recorded. Only verified manifests count, and of those that reference the"
        " layer the newest `:images` (1,000 if left empty, all if 0). The tag has pointed to the"
        " image since `valid_from` or earlier.",
        "No tag points to an image with this layer now.",
        """\
WITH found AS (  -- the newest first: image_search has the digits of each referenced digest
    SELECT i.id, digest, iif(json_valid(manifest), manifest, '{}') AS text
    FROM image_search AS s CROSS JOIN images AS i ON i.id = s.rowid
    WHERE image_search MATCH
          '"' || replace(coalesce(substr(:layer, instr(:layer, ':') + 1), ''), '"', '') || '"'
      AND verified
    ORDER BY s.rowid DESC
    LIMIT coalesce(nullif(CAST(coalesce(nullif(:images, ''), 1000) AS INTEGER), 0), -1)
), holders AS (  -- schema 1 has fsLayers
    SELECT digest FROM found CROSS JOIN json_each(text, '$.layers') AS l
    WHERE l.type = 'object' AND json_extract(l.value, '$.digest') = :layer
    UNION
    SELECT digest FROM found CROSS JOIN json_each(text, '$.fsLayers') AS l
    WHERE l.type = 'object' AND json_extract(l.value, '$.blobSum') = :layer
), indexes AS (
    SELECT i.digest
    FROM holders CROSS JOIN image_search AS s CROSS JOIN images AS i ON i.id = s.rowid
    WHERE image_search MATCH '"' || substr(holders.digest, instr(holders.digest, ':') + 1) || '"'
      AND verified
      AND EXISTS (SELECT 1 FROM image_platforms AS p
                  WHERE p.index_digest = i.digest AND p.manifest_digest = holders.digest)
)
SELECT repository, tag, h.digest, valid_from
FROM (SELECT digest FROM holders UNION SELECT digest FROM indexes) AS leading
CROSS JOIN tag_history AS h ON h.digest = leading.digest
WHERE valid_to IS NULL
ORDER BY repository, tag""",
        (
            Parameter(
                "layer",
                "Layer",
                "The whole digest of a layer.",
                example=f"sha256:{'4e07' * 16}",
                required=True,
            ),
            Parameter(
                "images",
                "Images",
                "How many of the newest images with the layer to examine. Empty: 1,000. 0: all.",
                1000,
            ),
        ),
    ),
    Question(
        "same-image-elsewhere",
        "Which images are tagged in more than one repository?",
        "An image to which tags of at least two repositories point now, `:repository` among them"
        " (`*` for any), with all these tags. The answer has the `:count` images with the most tags"
        " (100 if left empty).",
        "No such image is tagged in more than one repository.",
        """\
WITH wanted AS (
    SELECT * FROM (
        SELECT digest FROM tags
        WHERE :repository = '*' AND digest IS NOT NULL
        GROUP BY digest
        HAVING min(repository_id) < max(repository_id)
        ORDER BY count(*) DESC, digest
        LIMIT coalesce(nullif(:count, ''), 100)
    )
    UNION  -- one of the two halves is empty, and takes no time
    SELECT digest FROM tags
    WHERE repository_id = (SELECT id FROM repositories WHERE full_name = :repository)
      AND digest IS NOT NULL
)
SELECT h.digest, count(DISTINCT repository) AS repositories, count(*) AS tags,
       group_concat(repository || ':' || tag, ', ') AS tagged_as
FROM wanted CROSS JOIN tag_history AS h ON h.digest = wanted.digest
WHERE valid_to IS NULL
GROUP BY h.digest
HAVING count(DISTINCT repository) > 1
ORDER BY tags DESC, h.digest
LIMIT coalesce(nullif(:count, ''), 100)""",
        (
            Parameter(
                "repository",
                "Repository",
                "The full name of a repository. *: all repositories, which takes about a second for"
                " every million tags.",
                example="swr/team-a/service",
                repository=True,
                required=True,
            ),
            Parameter("count", "Images", "How many images to show. Empty: 100.", 100),
        ),
    ),
    Question(
        "deleted",
        "What was deleted, and how exactly do we know when?",
        "A tag that still existed at `not_before` and no longer existed at `observed_at`."
        " `hours_uncertain` is the number of hours between these two times, and `old_digest` is"
        " the digest to which the tag last pointed.",
        "No tag was deleted.",
        """\
SELECT repository, tag, old_digest, not_before, observed_at,
       round((julianday(observed_at) - julianday(not_before)) * 24, 2) AS hours_uncertain
FROM change_log
WHERE kind = 'deleted'
ORDER BY id DESC""",
    ),
    Question(
        "immutable-tags-that-changed",
        "Which tags moved or were deleted although they must not?",
        "A change of a tag that matched the key `immutable` of its watch when the change was"
        " recorded, in `:repository` (every repository if left empty). The changes that were not"
        " accepted come first; the others have the time, the user and the reason.",
        "No immutable tag moved or was deleted.",
        """\
SELECT e.change_id, r.full_name AS repository, e.tag, e.kind,
       json_extract(e.detail, '$.previous_digest') AS previous_digest, c.new_digest,
       c.not_before, c.observed_at, a.at AS accepted_at, a.who AS accepted_by, a.reason
FROM events AS e
CROSS JOIN changes AS c ON c.id = e.change_id
CROSS JOIN repositories AS r ON r.id = c.repository_id
LEFT JOIN acceptances AS a ON a.change_id = e.change_id
WHERE e.kind IN ('immutable_moved', 'immutable_deleted')
  AND (nullif(:repository, '') IS NULL OR r.full_name = :repository)
ORDER BY a.at IS NOT NULL, e.change_id DESC""",
        (
            Parameter(
                "repository",
                "Repository",
                "The full name of a repository. Empty: every repository.",
                example="swr/team-a/service",
                repository=True,
            ),
        ),
    ),
    Question(
        "immutable-tags-that-moved",
        "Which tags moved although their names look immutable?",
        "A tag that moved to another digest although its name looks like a full version, a date or"
        " a commit. A move also counts if the tag was deleted before it was added with another"
        " digest.",
        "No tag whose name looks immutable moved.",
        """\
SELECT repository, tag, previous_digest AS old_digest, new_digest, not_before, observed_at
FROM (SELECT *, replace(tag, 'sha-', '') AS bare FROM tag_moves)
WHERE bare GLOB '[0-9]*.[0-9]*.[0-9]*' OR bare GLOB 'v[0-9]*.[0-9]*.[0-9]*'
   OR bare GLOB '*20[0-9][0-9][01][0-9][0-3][0-9]*'
   OR bare GLOB '*20[0-9][0-9]-[01][0-9]-[0-3][0-9]*'
   OR length(bare) BETWEEN 7 AND 64 AND bare GLOB '*[0-9]*' AND bare NOT GLOB '*[^0-9a-f]*'
ORDER BY id DESC""",
    ),
    Question(
        "biggest-images",
        "Which images are the biggest?",
        "One of the `:count` biggest images (20 if left empty) to which a tag points now, with the"
        " size that its manifest states, or else the registry. A layer that several images share"
        " counts in the size of each of these images.",
        "No image has a known size.",
        """\
SELECT i.digest, size, round(size / 1048576.0, 1) AS mebibytes, count(*) AS tags,
       min(repository || ':' || tag) AS tagged_as
FROM images AS i CROSS JOIN tag_history AS h ON h.digest = i.digest
WHERE size IS NOT NULL AND valid_to IS NULL
GROUP BY size, i.id  -- in the order of images_by_size, up to the last row of the answer
ORDER BY size DESC, i.id DESC
LIMIT coalesce(nullif(:count, ''), 20)""",
        (Parameter("count", "Images", "How many images to show. Empty: 20.", 20),),
    ),
    Question(
        "stale-repositories",
        "Which repositories are stale?",
        "A repository whose last complete listing is more than `:hours` hours old (1 if left"
        " empty), or that has no complete listing, with its last error. A repository that no longer"
        " exists in its registry is left out.",
        "No repository is that stale.",
        """\
SELECT full_name AS repository, last_complete_at,
       round((julianday('now') - julianday(last_complete_at)) * 24, 1) AS hours_ago,
       failures, last_attempt_at, last_error
FROM repositories AS r
WHERE (last_complete_at IS NULL
       OR last_complete_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now',
                                      '-' || coalesce(nullif(:hours, ''), 1) || ' hours'))
  AND NOT EXISTS (
        SELECT 1 FROM observations WHERE outcome = 'ok' AND reasons = 'gone' AND id = (
            SELECT id FROM observations WHERE repository_id = r.id ORDER BY id DESC LIMIT 1))
ORDER BY last_complete_at, repository""",
        (Parameter("hours", "Hours", "The least age of the last complete listing. Empty: 1.", 1),),
    ),
    Question(
        "holes",
        "When did we not see the tags?",
        "A gap of more than `:minutes` minutes (10 if left empty) in the coverage of `:repository`"
        " (every repository if left empty) that lasted into the last `:days` days (7 if left empty,"
        " the whole history if 0). `polls_in_vain` is the number of polls in the gap that failed or"
        " were held. A gap without `unseen_until` has not ended.",
        "There is no such gap.",
        """\
WITH time AS (
    SELECT iif(coalesce(nullif(:days, ''), 7) + 0 = 0, '',
               strftime('%Y-%m-%dT%H:%M:%fZ', 'now',
                        '-' || coalesce(nullif(:days, ''), 7) || ' days')) AS since
), watched AS (  -- each with the last observation of complete listings that ended before this time
    SELECT r.id AS repository_id, full_name, since, coalesce((
               SELECT o.id FROM observations AS o
               WHERE o.repository_id = r.id AND outcome = 'ok' AND last_at < since
               ORDER BY o.id DESC LIMIT 1), 0) AS first_id
    FROM repositories AS r CROSS JOIN time
    WHERE nullif(:repository, '') IS NULL OR full_name = :repository
), spells AS (  -- each spell begins with an observation of complete listings
    SELECT full_name, since, outcome, first_at, last_at, polls,
           sum(outcome = 'ok') OVER (PARTITION BY w.repository_id ORDER BY id) AS spell
    FROM watched AS w
    CROSS JOIN observations AS o ON o.repository_id = w.repository_id AND id >= first_id
), holes AS (
    SELECT full_name AS repository, spell, since,
           max(last_at) FILTER (WHERE outcome = 'ok') AS unseen_from,
           lead(min(first_at)) OVER (PARTITION BY full_name ORDER BY spell) AS unseen_until,
           total(polls) FILTER (WHERE outcome <> 'ok') AS polls_in_vain
    FROM spells
    GROUP BY full_name, spell
)
SELECT repository, unseen_from, unseen_until,
       round((julianday(coalesce(unseen_until, 'now')) - julianday(unseen_from)) * 24, 2) AS hours,
       CAST(polls_in_vain AS INTEGER) AS polls_in_vain
FROM holes
WHERE spell > 0
  AND (unseen_until IS NULL OR unseen_until > since)
  AND (julianday(coalesce(unseen_until, 'now')) - julianday(unseen_from)) * 1440
      > coalesce(nullif(:minutes, ''), 10) + 0
ORDER BY unseen_from DESC, repository""",
        (
            _DAYS_OR_ALL,
            Parameter("minutes", "Minutes", "Shorter gaps are left out. Empty: 10.", 10),
            Parameter(
                "repository",
                "Repository",
                "The full name of a repository. Empty: every repository.",
                example="swr/team-a/service",
                repository=True,
            ),
        ),
    ),
)

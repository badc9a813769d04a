"""The calculations of an exploration: themes, names, map, neighbours, duplicates and drift."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree, procrustes

from aico_lab.embeddings.exploration import drift, duplicates, map_layout
from aico_lab.embeddings.exploration.clusters import cluster
from aico_lab.embeddings.exploration.duplicates import find_duplicates
from aico_lab.embeddings.exploration.neighbours import nearest
from aico_lab.embeddings.exploration.space import Space, unit
from aico_lab.embeddings.exploration.stability import Agreement, adjusted_rand_index, choose
from aico_lab.embeddings.exploration.tables import of_shares
from aico_lab.embeddings.exploration.theme_names import words_of
from aico_lab.embeddings.exploration.themes import ThemeParameters, find_themes
from aico_lab.errors import InvalidValue

SUBJECTS = {
    "music": "music piano song listen",
    "sleep": "sleep night tired bed",
    "food": "food pizza eat cook",
    "school": "class school math homework",
}


def blobs(groups, each, dimensions=32, spread=0.35, seed=1):
    """Return unit vectors around `groups` directions, and the group of each."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((groups, dimensions))
    group = np.repeat(np.arange(groups), each)
    noise = random.standard_normal((len(group), dimensions)) * spread
    common = np.ones(dimensions) * 2  # what all texts of a model share
    return unit((centres[group] + noise + common).astype(np.float32)), group


def messages_about(group, *, people=10, greeting=()):
    names = list(SUBJECTS.values())
    return pl.DataFrame(
        {
            "passage": np.arange(len(group)),
            "person": [f"p{at % people}" for at in range(len(group))],
            "content": [
                "Hello, hi" if one in greeting else f"I like the {names[one]}"
                for one in group.tolist()
            ],
        }
    )


def test_a_space_keeps_what_tells_texts_apart_and_can_be_stored():
    vectors, _ = blobs(4, 50)
    space = Space.of(vectors, removed=1, components=8)
    placed = space.place(vectors)
    assert placed.shape == (200, 8)
    assert np.allclose(np.linalg.norm(placed, axis=1), 1, atol=1e-5)
    again = Space.unpack(space.pack(), 32, space.share)
    assert np.array_equal(again.place(vectors), placed)
    assert np.allclose(space.components @ space.components.T, np.eye(8), atol=1e-5)
    with pytest.raises(InvalidValue, match="same model"):
        space.place(vectors[:, :16])
    with pytest.raises(InvalidValue, match=r"another seed"):
        Space.unpack(b"123", 32, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(value):
    vectors, _ = blobs(2, 20)
    space = Space.of(vectors)
    vectors[3, 4] = value
    for refused in (Space.of, space.place):
        with pytest.raises(InvalidValue, match="not finite"):
            refused(vectors)
    with pytest.raises(InvalidValue, match="no vectors"):
        Space.of(np.empty((0, 32), np.float32))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 6), st.integers(0, 5), st.booleans(), st.integers(0, 2**32)
)
def test_any_number_of_passages_has_a_space_and_clusters(
    passages, dimensions, removed, equal, seed
):
    """Also if all are equal, or there is only one."""
    random = np.random.default_rng(seed)
    vectors = unit(random.standard_normal((passages, dimensions)).astype(np.float32))
    if equal:
        vectors[:] = vectors[0]
    points = Space.of(vectors, removed=removed).place(vectors)
    assert np.isfinite(points).all()
    number = min(3, len(np.unique(points, axis=0)))
    found = cluster(points, number, seed=seed)
    assert np.isfinite(found.centres).all()
    assert set(found.labels.tolist()) <= set(range(number))
    assert np.isfinite(map_layout.lay_out(points, seed=seed)).all()


def test_clusters_are_the_groups_whatever_the_seed():
    vectors, group = blobs(5, 60)
    points = Space.of(vectors, removed=0).place(vectors)
    for seed in range(3):
        assert adjusted_rand_index(cluster(points, 5, seed=seed).labels, group) > 0.99


def test_the_rand_index_is_that_of_a_published_example():
    """Hubert and Arabie's formula by hand, for a small table; 1 for renamed groups."""
    one, other = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    # pairs together in both: 2; in one: 6; in the other: 3; of 15: (2 - 1.2) / (4.5 - 1.2)
    assert adjusted_rand_index(one, other) == pytest.approx(0.8 / 3.3)
    assert adjusted_rand_index(one, 1 - one) == 1


def test_the_largest_number_that_is_about_as_stable_as_the_best_is_chosen():
    by_number = {10: 0.5, 20: 0.6, 30: 0.55, 40: 0.3}
    agreements = [Agreement(number, mean, 0.1) for number, mean in by_number.items()]
    assert choose(agreements).themes == 30
    assert choose([Agreement(1, float("nan"), float("nan"))]).themes == 1


def test_themes_have_names_and_the_same_ones_tomorrow():
    vectors, group = blobs(4, 60)
    words = words_of(messages_about(group))
    parameters = ThemeParameters(removed=0, candidates=(2, 4))
    found = find_themes(vectors, words, parameters)
    assert found.chosen == 4
    assert adjusted_rand_index(found.of_passage, group) > 0.99
    named = {frozenset(theme.name.split(", ")) for theme in found.themes}
    assert named == {frozenset(said.split()) for said in SUBJECTS.values()}
    again = find_themes(vectors, words, parameters)
    assert np.array_equal(again.of_passage, found.of_passage)
    assert np.array_equal(again.distance, found.distance)
    assert found.stability > 0.9
    theme, distance = found.place(found.space.place(vectors))
    assert np.array_equal(theme, found.of_passage)
    assert np.allclose(distance, found.distance, atol=1e-5)


def test_themes_of_the_same_words_are_one():
    vectors, group = blobs(4, 60)
    words = words_of(messages_about(group, greeting={1, 2}))
    found = find_themes(vectors, words, ThemeParameters(removed=0, themes=4))
    assert [theme.name for theme in found.themes].count("hello, hi") == 1
    assert len(found.themes) == 3
    assert len(found.themes[0].centres) == 2  # the largest theme comes first
    assert np.bincount(found.of_passage).tolist() == [120, 60, 60]
    assert found.notes()["merged"] == [["hello, hi", "hello, hi"]]


def test_a_word_of_few_people_names_no_theme():
    vectors, group = blobs(4, 60)
    messages = messages_about(group, people=6)
    theirs = (
        messages.with_columns(  # the fifth and the sixth person write about nothing
            content=pl.when(pl.col("person").is_in(["p4", "p5"]))
            .then(pl.lit("…"))
            .otherwise("content")
        )
        .with_row_index()
        .with_columns(
            content=pl.when(pl.col("index") < 2).then(pl.lit("or")).otherwise("content"),
            person=pl.when(pl.col("index") < 2).then(pl.format("q{}", "index")).otherwise("person"),
        )
    )
    few = words_of(theirs)
    found = find_themes(vectors, few, ThemeParameters(removed=0, themes=4))
    assert [theme.name for theme in found.themes] == ["Theme 0", "Theme 1", "Theme 2", "Theme 3"]
    assert found.min_people == 5
    found = find_themes(vectors, few, ThemeParameters(removed=0, themes=4, min_people=4))
    assert not any(theme.name.startswith("Theme") for theme in found.themes)
    assert {word.people for theme in found.themes for word in theme.words} == {4}


@pytest.mark.parametrize("people", [1, 4])
def test_in_a_home_of_few_people_words_of_all_of_them_name_themes(people):
    vectors, group = blobs(4, 60)
    words = words_of(messages_about(group, people=people))
    found = find_themes(vectors, words, ThemeParameters(removed=0, themes=4))
    assert not any(theme.name.startswith("Theme") for theme in found.themes)
    assert found.notes()["min_people"] == people


def test_a_passage_about_nothing_is_an_outlier():
    vectors, group = blobs(4, 100, spread=0.1)
    random = np.random.default_rng(2)
    stray = unit((random.standard_normal((20, 32)) + 2).astype(np.float32))
    words = words_of(messages_about(group))
    found = find_themes(np.vstack([vectors, stray]), words, ThemeParameters(removed=0, themes=4))
    assert not found.is_outlier[:400].any()
    assert found.is_outlier[400:].mean() > 0.3


def test_words_are_counted_by_person_and_without_stretches_and_addresses():
    found = words_of(
        pl.DataFrame(
            {
                "passage": [0, 0, 1],
                "person": ["eve", "ada", None],
                "content": [
                    "Hahahah hahaha HAHA, sooooo good. Don\u2019t!",
                    "see https://example.com/good or a@example.com papaya",
                    "good 42",
                ],
            }
        )
    )
    counted = {
        (int(p), int(who), found.vocabulary[w]): int(n)
        for p, who, w, n in zip(found.passage, found.person, found.word, found.uses, strict=True)
    }
    assert counted == {
        (0, 1, "haha"): 3, (0, 1, "soo"): 1, (0, 1, "good"): 1, (0, 1, "don't"): 1,
        (0, 0, "see"): 1, (0, 0, "or"): 1, (0, 0, "papaya"): 1,
        (1, -1, "good"): 1,
    }  # fmt: skip


def test_without_any_words_themes_have_numbers():
    vectors, _ = blobs(2, 30)
    empty = pl.DataFrame({"passage": [0], "person": ["ada"], "content": ["…"]})
    found = find_themes(vectors, words_of(empty), ThemeParameters(themes=2))
    assert [theme.name for theme in found.themes] == ["Theme 0", "Theme 1"]  # as in SQL


@pytest.mark.parametrize(
    "wrong",
    [
        {"themes": 0}, {"components": 0}, {"candidates": ()}, {"min_people": 0}, {"seed": -1},
        {"themes": "5"}, {"seed": 1.5}, {"prior": float("nan")}, {"themes": True}, {"seed": None},
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidValue):
        ThemeParameters(**wrong)


def test_neighbours_are_those_of_a_full_sort():
    vectors, _ = blobs(3, 40)
    own = np.arange(120)
    places, cosines = nearest(vectors, vectors, 7, own=own)
    exact = vectors.astype(np.float64) @ vectors.T
    np.fill_diagonal(exact, -2)
    assert np.allclose(cosines, -np.sort(-exact, axis=1)[:, :7], atol=1e-5)
    assert not (places == own[:, None]).any()
    assert nearest(vectors[:2], vectors, 500)[0].shape == (2, 120)
    assert nearest(vectors[:1], vectors[:1], 3, own=np.zeros(1, np.int64))[0].shape == (1, 0)


def test_on_the_map_neighbours_share_a_group_and_further_passages_join_them(monkeypatch):
    vectors, group = blobs(6, 100)
    space = Space.of(vectors, removed=0)
    points = space.place(vectors)
    drawn = map_layout.lay_out(points)
    _, near = cKDTree(drawn).query(drawn, 11)
    assert (group[near[:, 1:]] == group[:, None]).mean() > 0.95
    assert np.array_equal(map_layout.lay_out(points), drawn)
    assert np.abs(drawn.mean(axis=0)).max() < 1e-3
    half = np.arange(0, 600, 2)
    placed = map_layout.place_among(points[1::2], points[half], drawn[half])
    _, near = cKDTree(drawn[half]).query(placed, 5)
    assert (group[half][near] == group[1::2, None]).mean() > 0.95
    monkeypatch.setattr(map_layout, "LAID_OUT", 200)
    drawn = map_layout.lay_out(points)
    _, near = cKDTree(drawn).query(drawn, 11)
    assert (group[near[:, 1:]] == group[:, None]).mean() > 0.9


def test_duplicates_are_exact_or_near():
    vectors, _ = blobs(8, 1, spread=0)
    vectors = vectors[[0, 1, 2, 0, 3, 4, 1, 5]].copy()
    vectors[7] = unit((vectors[5] * 20 + vectors[4])[None])[0]
    texts = ["Hi", "b", "c", "hi ", "d", "e", "b!", "e too"]
    found = find_duplicates(texts, vectors, near=0.99)
    assert [(one.passages, one.is_exact) for one in found] == [
        ((0, 3), True), ((1, 6), False), ((5, 7), False)
    ]  # fmt: skip
    assert 0.99 < found[-1].cosine < 1
    assert [one.passages for one in find_duplicates(texts, vectors, near=1.5)] == [(0, 3)]
    assert find_duplicates([], np.empty((0, 3), np.float32)) == []


def test_texts_in_another_case_are_the_same_whatever_the_model_makes_of_them():
    """Alone, and where they join a group: "least cosine" was 0 here, of a minimum of 0.9."""
    vectors, _ = blobs(3, 1, spread=0)
    near = unit((vectors[0] * 20 + vectors[1])[None])[0]
    texts = ["Hi", "HI", "hi you", "Hi\nYOU", "hi"]
    made = np.stack([vectors[0], vectors[2], near, vectors[2], vectors[0]])
    (found,) = find_duplicates(texts, made, near=0.9)
    assert (found.passages, found.is_exact) == ((0, 1, 2, 3, 4), False)
    assert found.cosine == pytest.approx(float(near @ vectors[0]))
    (exact,) = find_duplicates(texts[:2], made[:2])
    assert (exact.is_exact, exact.cosine) == (True, 1)


def test_each_duplicate_is_near_the_first_of_its_group():
    """Of a chain in which each text is near the next one, only the middle is near both ends."""
    angle = np.deg2rad([0, 15, 30, 45, 60])
    chain = np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    found = find_duplicates(["a", "b", "c", "d", "e"], chain, near=0.96)
    assert [one.passages for one in found] == [(0, 1), (2, 3)]
    assert all(one.cosine >= 0.96 for one in found)
    # What occurs most often represents its group, wherever it is.
    found = find_duplicates(["a", "b", "c", "b", "e"], chain[[0, 1, 2, 1, 4]], near=0.96)
    assert [one.passages for one in found] == [(1, 0, 2, 3)]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(1, 3), st.floats(0.5, 1), st.integers(0, 2**32))
def test_representatives_are_not_near_each_other(number, block, near, seed):
    """Whatever the block in which texts are compared."""
    vectors = unit(np.random.default_rng(seed).standard_normal((number, 3)).astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_AT_ONCE", block)
        found = find_duplicates([str(at) for at in range(number)], vectors, near=near)
    grouped = [at for one in found for at in one.passages]
    assert len(grouped) == len(set(grouped))
    firsts = [one.passages[0] for one in found] + [
        at for at in range(number) if at not in set(grouped)
    ]
    between = vectors[firsts] @ vectors[firsts].T - 2 * np.eye(len(firsts))
    assert (between < near + 1e-6).all()
    for one in found:
        assert (vectors[list(one.passages)] @ vectors[one.passages[0]] >= near - 1e-6).all()


def test_models_that_differ_by_a_rotation_do_not_differ():
    vectors, _ = blobs(5, 60)
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((32, 32)))[0].astype(np.float32)
    same = drift.between_models(vectors, unit(vectors @ turn))
    assert same.overlap > 0.99
    assert same.procrustes < 1e-4
    few = drift.between_models(vectors[:5], vectors[:5])
    assert (few.passages, few.neighbours, few.overlap) == (5, 4, 1)
    random = np.random.default_rng(4)
    other = unit(random.standard_normal((300, 16)).astype(np.float32))
    unrelated = drift.between_models(vectors, other)
    assert unrelated.overlap < 3 * unrelated.by_chance
    padded = np.hstack([other, np.zeros((300, 16), np.float32)])
    assert unrelated.procrustes == pytest.approx(procrustes(vectors, padded)[2], abs=1e-4)
    with pytest.raises(InvalidValue, match="same passages"):
        drift.between_models(vectors, other[:3])


def test_a_change_of_themes_is_found_and_none_is_invented():
    random = np.random.default_rng(5)
    vectors, _ = blobs(2, 1000)
    people = [[f"p{one}"] for one in random.integers(0, 80, 2000)]
    is_later = random.random(2000) < 0.5
    same = random.integers(0, 2, 2000)
    found = drift.between_periods(same, 2, vectors[same * 1000], is_later, people)
    assert (found.low <= found.after - found.before).all()
    assert (found.after - found.before <= found.high).all()
    assert (found.low < 0.03).all()
    assert (found.high > -0.03).all()
    assert found.people == 80
    moved = np.where(is_later, random.random(2000) < 0.8, random.random(2000) < 0.2).astype(int)
    found = drift.between_periods(moved, 2, vectors[moved * 1000], is_later, people)
    assert found.low[1] > 0.4
    assert found.high[0] < -0.4
    assert found.shift > found.by_chance
    with pytest.raises(InvalidValue, match="two periods"):
        drift.between_periods(moved, 2, vectors[:2000], np.ones(2000, bool), people)


def homes(number, people, share, spread, seed=7):
    """Return passages of homes, each in a month of its own, and the share of theme 0 of them all.

    Shares differ between people, by a beta distribution, and so do the numbers of passages.
    """
    random = np.random.default_rng(seed)
    size = np.maximum(1, random.lognormal(1.5, 1.2, (number, people)).astype(int))
    part = random.binomial(size, random.beta(share * spread, (1 - share) * spread, size.shape))
    home, person = (axis.ravel() for axis in np.indices(size.shape))
    rows = np.repeat(np.arange(size.size), size.ravel())
    before = np.cumsum(size.ravel()) - size.ravel()
    in_theme = np.arange(len(rows)) - before[rows] < part.ravel()[rows]
    month = np.datetime64("1970-01") + home[rows].astype("timedelta64[M]")
    return pl.DataFrame(
        {"moment": month.astype("datetime64[us]"), "theme": np.where(in_theme, 0, 1)}
    ).with_columns(
        pl.col("moment").dt.replace_time_zone("UTC"),
        writers=pl.concat_list(pl.format("p{}", pl.Series(person[rows]))),
    )


def covered(number, people, share, spread):
    """Return how often the interval of the share has it, and of how many homes there is one."""
    found = of_shares(homes(number, people, share, spread), ["one", "other"], [0], "month")
    inside = (found["share_low"] <= 100 * share) & (100 * share <= found["share_high"])
    return float(inside.mean()), found["share_low"].count()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_intervals_of_shares_cover_the_truth(share):
    """Rare themes too: resampling people covered 36 to 79 % here."""
    covering, intervals = covered(100, 10, share, 6)
    assert covering >= 0.9
    assert intervals == 100


@pytest.mark.slow
@pytest.mark.parametrize(("people", "number"), [(10, 1000), (50, 400), (300, 100)])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_intervals_cover_at_every_number_of_people(people, number, share):
    assert covered(number, people, share, 6)[0] >= 0.92


def test_a_theme_without_a_passage_may_have_a_share_above_0():
    """And nothing is said about fewer than ten people."""
    rows = homes(2, 10, 1e-9, 10)
    found = of_shares(rows, ["one", "other"], [0, 1], "month")
    assert found["share"].to_list() == [0, 0, 100, 100]
    assert (found["share_high"][:2] > 5).all()
    assert (found["share_low"][2:] < 95).all()
    assert found["people"].to_list() == [10] * 4
    nine = rows.filter(pl.col("writers").list.first() != "p0")
    assert of_shares(nine, ["one", "other"], [0], "month")["share_low"].null_count() == 2


def test_a_passage_of_several_people_counts_once_and_for_each():
    rows = pl.DataFrame(
        {
            "moment": [datetime(2024, 1, 1, tzinfo=UTC)] * 3, "theme": [0, 0, 1],
            "writers": [["ann", "bob"], ["bob"], []],
        },
        schema_overrides={"writers": pl.List(pl.String())},
    )  # fmt: skip
    found = of_shares(rows, ["one", "other"], [0], "month")
    assert found["share"].to_list() == pytest.approx([200 / 3])
    assert (found["n"].item(), found["people"].item()) == (3, 2)


def people_drift(random, people, *, themes=8, growth=1, apart=False, change=0.0):
    """Return the drift of a home whose people differ, and whose last theme may grow."""
    shares = random.dirichlet(np.full(themes, 0.5), people)
    size = np.maximum(1, random.lognormal(1.5, 1, (2, people)).astype(int))
    size[1] *= growth
    if apart:
        size[np.arange(people) % 2, np.arange(people)] = 0
    rows = []
    for later in (0, 1):
        for person in range(people):
            theme = random.choice(themes, size[later, person], p=shares[person])
            moved = random.random(len(theme)) < change * later
            rows += [(later, person, one) for one in np.where(moved, themes - 1, theme)]
    later, person, theme = np.array(rows).T
    writers = [[f"p{one}"] for one in person]
    return drift.between_periods(theme, themes, np.eye(themes)[theme], later == 1, writers)


@pytest.mark.parametrize(("growth", "apart"), [(1, False), (1, True), (4, False)])
def test_few_homes_without_a_change_have_any_clear_one(growth, apart, monkeypatch):
    """One in twenty: over all themes, and also if people come and go, or write more."""
    monkeypatch.setattr(drift, "_FLIPS", 200)
    random = np.random.default_rng(8)
    clear = 0
    for _ in range(60):
        found = people_drift(random, 20, growth=growth, apart=apart)
        clear += bool(((found.low > 0) | (found.high < 0)).any())
    assert clear <= 8  # of more, 1 in 200 times if the rate is 5 %


@pytest.mark.parametrize(("growth", "apart"), [(1, True), (4, False)])
def test_mean_vectors_of_few_people_are_rarely_further_apart_than_chance(
    growth, apart, monkeypatch
):
    """Flipping signs was exceeded in 14 of 100 homes where each person wrote in one period."""
    monkeypatch.setattr(drift, "_FLIPS", 200)
    random = np.random.default_rng(10)
    found = [people_drift(random, 12, growth=growth, apart=apart) for _ in range(100)]
    assert sum(one.shift > one.by_chance for one in found) <= 9  # 3 in 100 times more, at 5 %
    assert np.median([one.by_chance / one.shift for one in found]) < 3  # but often nearly


def test_a_change_of_many_people_is_clear_and_one_of_a_single_person_is_not():
    random = np.random.default_rng(9)
    found = people_drift(random, 40, change=0.5)
    assert found.low[-1] > 0
    assert found.without[-1] > 0.5 * (found.after - found.before)[-1]
    theme = np.concatenate([np.tile([0, 1], 400), np.full(500, 2)])
    is_later = np.concatenate([np.arange(800) % 4 < 2, np.ones(500, bool)])
    writers = [[f"p{at % 40}"] for at in range(800)] + [["one"]] * 500
    found = drift.between_periods(theme, 3, np.eye(3)[theme], is_later, writers)
    assert found.after[2] - found.before[2] > 0.5
    assert not found.low[2] > 0
    assert found.without[2] == 0
    assert found.people_of.tolist() == [20, 20, 1]


def test_of_fewer_than_ten_people_nothing_is_said_about_chance():
    found = people_drift(np.random.default_rng(10), 9)
    assert np.isnan([*found.low, *found.high, found.by_chance]).all()
    assert found.people == 9

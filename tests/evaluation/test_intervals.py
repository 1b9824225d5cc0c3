"""Bootstrap intervals: they hold the truth as often as they say, know clusters, and are the same again."""

import numpy as np
import pytest

from paligemma.evaluation.intervals import bootstrap, clusters, mean_interval


def test_clusters():
    assert [rows.tolist() for rows in clusters(["a", "b", "a", "c"])] == [[0, 2], [1], [3]]


def test_the_true_mean_is_inside_about_as_often_as_promised():
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        values = (rng.random(60) < 0.3).astype(float)
        low, high = mean_interval([np.array([i]) for i in range(60)], values, resamples=200, seed=trial)
        assert low <= values.mean() <= high
        inside += low <= 0.3 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_both_ways_agree():
    values = np.random.default_rng(0).random(50)
    drawn = clusters([i // 3 for i in range(50)])
    assert bootstrap(drawn, lambda rows: float(values[rows].mean()), resamples=300) == pytest.approx(
        mean_interval(drawn, values, resamples=300)
    )


def test_answers_about_one_picture_do_not_count_as_many():
    values = np.repeat(np.random.default_rng(0).random(20) < 0.5, 10).astype(float)
    alone = mean_interval([np.array([i]) for i in range(200)], values)
    together = mean_interval(clusters([i // 10 for i in range(200)]), values)
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_the_same_again_and_a_point_for_one():
    drawn = clusters(range(30))
    values = np.random.default_rng(0).random(30)
    assert mean_interval(drawn, values) == mean_interval(drawn, values) != mean_interval(drawn, values, seed=1)
    assert mean_interval(clusters([0]), np.array([0.5])) == (0.5, 0.5)
    assert bootstrap([], lambda rows: float(len(rows))) == (0.0, 0.0)

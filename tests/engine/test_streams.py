"""Random numbers of answers: the same for a seed, whatever the batch; apart for copies; in range."""

from paligemma.engine.options import Options
from paligemma.engine.streams import streams


def never() -> int:
    raise AssertionError("a seed was given")


def draw(stream) -> float:
    return float(stream.random(dtype="float32"))


def test_an_answer_draws_the_same_in_every_batch():
    (alone,) = streams(Options(temperature=1.0, seed=3), 1, never)
    many = streams(Options(temperature=1.0, seed=3), 3, never)
    expected = [draw(alone) for _ in range(4)]
    drawn = [(draw(many[0]), draw(many[2])) for _ in range(4)]
    assert [one for one, _ in drawn] == [other for _, other in drawn] == expected
    assert draw(many[1]) == expected[0], "others' draws do not move it"


def test_copies_draw_apart_and_seeds_too():
    copies = [draw(one) for one in streams(Options(temperature=1.0, seed=3, best_of=4), 2, never)]
    assert len(set(copies[:4])) == 4
    assert copies[:4] == copies[4:]
    assert [draw(one) for one in streams(Options(temperature=1.0, seed=4), 1, never)] != copies[:1]


def test_without_a_seed_every_answer_has_another():
    numbers = iter(range(100))
    first = [draw(one) for one in streams(Options(temperature=1.0), 3, lambda: next(numbers))]
    assert len(set(first)) == 3
    assert all(0 <= number < 1 for number in first)


def test_greedy_draws_nothing():
    assert streams(Options(), 3, never) == [None] * 3

"""Random numbers of answers: the same for a seed, whatever the batch; apart for copies; in range."""

from paligemma.engine.options import Options
from paligemma.engine.streams import Streams


def never() -> int:
    raise AssertionError("a seed was given")


def test_an_answer_draws_the_same_in_every_batch():
    alone = Streams(Options(temperature=1.0, seed=3), 1, never)
    many = Streams(Options(temperature=1.0, seed=3), 3, never)
    expected = [alone.draw([0])[0] for _ in range(4)]
    drawn = [many.draw([0, 2]) for _ in range(4)]
    assert [one for one, _ in drawn] == [other for _, other in drawn] == expected
    assert many.draw([1]) == expected[:1], "others' draws do not move it"


def test_copies_draw_apart_and_seeds_too():
    copies = Streams(Options(temperature=1.0, seed=3, best_of=4), 2, never).draw(range(8))
    assert len(set(copies[:4])) == 4
    assert copies[:4] == copies[4:]
    assert Streams(Options(temperature=1.0, seed=4), 1, never).draw([0]) != copies[:1]


def test_without_a_seed_every_answer_has_another():
    numbers = iter(range(100))
    first = Streams(Options(temperature=1.0), 3, lambda: next(numbers)).draw([0, 1, 2])
    assert len(set(first)) == 3
    assert all(0 <= number < 1 for number in first)


def test_greedy_draws_nothing():
    assert Streams(Options(), 3, never).draw([0, 1]) == []

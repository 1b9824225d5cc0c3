"""That draws are repeatable, and which names are drawn."""

from paligemma.data.lessons import MOST_CLASSES

from .making import found, items, told


def test_an_items_draws_depend_on_its_number_only():
    one, other = items(told(0, "p", "a"), told(1, "p", "a"))
    assert one.rng().integers(1 << 30) == one.rng().integers(1 << 30)
    assert one.rng().integers(1 << 30) != other.rng().integers(1 << 30)


def test_names_are_drawn_where_there_are_too_many_for_a_prompt():
    many = tuple(f"c{i}" for i in range(MOST_CLASSES + 1))
    assert items(found(1), classes=many)[0].names_are_drawn
    assert not items(found(1), classes=many[1:])[0].names_are_drawn
    assert not items(found(1, asked=("c1",)), classes=many)[0].names_are_drawn

"""Which pictures of which pages lack an alt text."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from paligemma.errors import InputError
from paligemma.jobs.html_pictures import items_of_pages, lacking

from .making import png


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("<img src=a.png>", ["a.png"]),
        ("<IMG SRC='a b.png' /><p><img src=c.png></p>", ["a b.png", "c.png"]),
        ("<img src=a.png alt><img src=b.png alt=''><img src=c.png alt='a cat'>", []),
        ("<img src=a.png role=presentation><img src=b.png aria-hidden=true>", []),
        ("<img src=a.png role=Presentation><img src=b.png aria-hidden=TRUE><img src=c.png role='none presentation'>", []),
        ("<img src=a.png role=img><img src=b.png aria-hidden=false><img src=c.png aria-hidden role>", ["a.png", "b.png", "c.png"]),
        ("<img><img src=''><img data-src=a.png>", []),
        ("<script>'<img src=a.png>'</script><!-- <img src=b.png> -->", []),
        ("<img src=a&amp;b.png", []),
        ("<img src=a&amp;b.png>", ["a&b.png"]),
    ],
)
def test_images_without_alt(page: str, found: list[str]):
    assert list(lacking(page)) == found


def test_a_picture_is_one_item_wherever_it_is_shown(tmp_path):
    (tmp_path / "img").mkdir()
    (tmp_path / "blog").mkdir()
    (tmp_path / "img" / "a b.png").write_bytes(png())
    (tmp_path / "index.html").write_text("<img src='img/a%20b.png?v=2'><img src='https://x.org/a.png'><img src='data:image/png;base64,AA'>")
    (tmp_path / "blog" / "one.htm").write_text("<img src='../img/a b.png'><img src='/img/a%20b.png#x'><img src='//x.org/a.png'>")
    (item,) = items_of_pages(tmp_path)
    assert item.id == "img/a b.png"
    assert item.kept == {
        "uses": [
            {"page": "index.html", "src": "img/a%20b.png?v=2"},
            {"page": "blog/one.htm", "src": "../img/a b.png"},
            {"page": "blog/one.htm", "src": "/img/a%20b.png#x"},
        ]
    }
    assert pickle.loads(pickle.dumps(item)).open().size == (8, 6)


def test_what_is_not_there_or_outside_fails_when_it_is_opened(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (tmp_path / "secret.png").write_bytes(png())
    (site / "link.png").symlink_to(tmp_path / "secret.png")
    (site / "a.html").write_text("<img src=none.png><img src=../secret.png><img src=link.png>")
    for item, says in zip(items_of_pages(site), ("no such file", "outside of the site", "a link out"), strict=True):
        with pytest.raises(InputError, match=says):
            item.open()


def test_pages_that_cannot_be_read_fail_alone(tmp_path, shut, monkeypatch):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.html").write_text("<img src=a.png>")
    (tmp_path / "folder").mkdir()
    (tmp_path / "b.html").write_text("<img src=a.png>")
    read_text = Path.read_text

    def refusing(path, *how, **named):
        if path.name == "b.html":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *how, **named)

    monkeypatch.setattr(Path, "read_text", refusing)
    shut(tmp_path / "folder")
    with pytest.warns(UserWarning, match="folder: this folder cannot be read"):
        picture, page = items_of_pages(tmp_path)
    assert (picture.id, page.id) == ("a.png", "b.html")
    with pytest.raises(InputError, match=r"b.html: cannot be read \(Permission denied\)"):
        page.open()


@pytest.mark.parametrize("name", [".", "none", "a.png"])
def test_no_pages(tmp_path, name):
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(InputError, match="no folder with pages"):
        items_of_pages(Path(tmp_path, name))

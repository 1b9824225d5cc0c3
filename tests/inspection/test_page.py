"""The page needs nothing else, every part is there, and nothing that the data say is taken for markup."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from paligemma.data.records import Fault
from paligemma.errors import ResourceError, UsageError
from paligemma.inspection.attention import attention_plot
from paligemma.inspection.counts import ClassCount, Tally
from paligemma.inspection.lengths import Lengths, Over
from paligemma.inspection.page import check_place, page, write_page
from paligemma.inspection.repeats import Contradiction, Repeats, SameFiles
from paligemma.inspection.sampled import Sampled, Sizes
from paligemma.inspection.samples import Sample, Token
from paligemma.inspection.terminal import summary
from paligemma.inspection.trips import Rounding, Worst
from paligemma.inspection.verdict import Remark, judge
from paligemma.inspection.words import bytes_in_words, seconds_in_words
from paligemma.model.paligemma import prefix_lm_mask

from ..evaluation.test_report import Reader
from .making import findings, source

EVIL = "<script>alert(1)</script>&\"'\u202e\x1b[31m"


def everything(word: str):
    """Findings in which `word` stands wherever the data can put one."""
    fault = Fault(word, "json", word, word, word)
    sample = Sample(
        0, word, word, "run", (word,), word, word, (Token(word, "start", False, False), Token(word, "suffix", True, True)), 9, 3, 4,
        (0, 1), True, 2, True, "data:image/webp;base64,AAAA", word,
    )  # fmt: skip
    plain = findings()
    broken = source(path=word, format=word, task=word, quarantine={"json": 12}, faults=(fault,) * 12, notes={word: 3})
    classes = (ClassCount(word, 3, 2), ClassCount(word * 9, 0, 0))
    found = findings(
        sources=(dataclasses.replace(broken, refused=word, hint=word),),
        model=word,
        recipe=word,
        counts=dataclasses.replace(plain.counts, tasks={word: 2}, classes=classes, things=3, answers=Tally(2, 1, ((word, 2),))),
        prompts=Tally(2, 1, ((word * 40, 2),)),
        lengths=Lengths(10, 5.0, 9, 12, word, ((5, 9, 1), (11, 12, 1)), 1, 0, (Over(0, word, word, 12, 3, "cut"),)),
        repeats=Repeats(
            SameFiles(((Path(word), Path("b")),), 20, 10),
            1,
            (word,),
            1,
            (Contradiction(word, word, ((word, word), (word, word)), (0, 1)),),
            (Path(word),),
        ),
        sampled=Sampled(
            1,
            2,
            (fault,),
            0.002,
            Sizes(1, (1, 2), (1, 2), (1, 2), 1, Tally()),
            Rounding(3, 0.5, word, 1, 1, 2, 0.4, 1, (Worst(0, word, word, 0.4),)),
            ((1, 1),),
        ),
        samples=(sample, dataclasses.replace(sample, tokens=(), problem=word, picture="")),
    )
    return dataclasses.replace(found, remarks=(*judge(found), Remark("warning", "word", word, word)))


def test_the_words_of_the_data_are_text_and_no_markup():
    html = page(everything(EVIL))
    read = Reader(html)
    assert "<script" not in html
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert read.text.count("<script>alert(1)</script>&\"'\\u202e\\x1b[31m") > 25
    assert read.links == ["data:image/webp;base64,AAAA"]
    assert not re.search(r"(?i)https?:|url\(|@import|\son\w+=", html.replace(EVIL, ""))


def test_the_terminal_cannot_be_steered():
    text = summary(everything(EVIL))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.splitlines()[-1].startswith("not fit to train on")


def test_every_part_is_there():
    text = Reader(page(everything("word"))).text
    for words in (
        "Not fit to train on", "What there is", "What a run would take", "Records that cannot be used", "Lengths", "2 classes", "rare",
        "never", "1 different prompt", "1 different answer", "Places through tokens and back", "0.400", "What stands there twice",
        "Contradictions", "As the model will see it", "4 picture", "and 7 more", "3 padding", "one of 2 answers", "evenly drawn",
        "not measured",
    ):  # fmt: skip
        assert words in text, words


def test_the_page_of_nothing_and_of_little():
    assert "Fit to train on" in Reader(page(dataclasses.replace(findings(), remarks=judge(findings())))).text
    bare = findings(costs=None, lengths=Lengths(10), prompts=Tally(), sampled=Sampled())
    assert "Lengths" not in Reader(page(bare)).text
    assert summary(bare)


def test_the_page_is_whole_or_not_there(tmp_path, monkeypatch):
    write_page(findings(), tmp_path / "page.html")
    before = (tmp_path / "page.html").read_text()
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ResourceError, match="No space left"):
        write_page(findings(), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == before


def test_a_place_that_cannot_be_is_told_before_the_work(tmp_path):
    with pytest.raises(UsageError, match="a folder"):
        check_place(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        check_place(tmp_path / "file" / "page.html")
    check_place(tmp_path / "new" / "page.html")
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize(("image_tokens", "prompt", "answer"), [(4, 3, 5), (1, 1, 1), (16, 2, 1)])
def test_the_attention_drawn_is_the_models(image_tokens: int, prompt: int, answer: int):
    mask_ar = [0] * prompt + [1] * answer
    svg = ElementTree.fromstring(attention_plot(image_tokens, mask_ar))
    (path,) = [one for one in svg if one.get("class") == "sees"]
    side = image_tokens + prompt + answer
    drawn = torch.zeros(side, side, dtype=torch.bool)
    for start, row, length in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path.get("d") or ""):
        drawn[int(row), int(start) : int(start) + int(length)] = True
    assert torch.equal(drawn, prefix_lm_mask(torch.tensor([[0] * image_tokens + mask_ar]))[0, 0])


def test_an_attention_too_large_to_draw_is_left_out():
    assert attention_plot(5000, [0, 1]) == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0021, "2.1 milliseconds"), (1, "1.0 seconds"), (90, "90 seconds"), (150, "2.5 minutes"), (7300, "2.0 hours"), (1e6, "12 days")],
)
def test_seconds_in_words(seconds, words):
    assert seconds_in_words(seconds) == words


def test_bytes_in_words():
    assert (bytes_in_words(3.2e9), bytes_in_words(159e6)) == ("3.2 GB", "159 MB")

"""Words of captions: a table of what the reference's tokenizer makes of them, and the tokenizer itself where Java is installed."""

import random
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.evaluation.ptb import PUNCTUATION, words

# Each right side is what `pycocoevalcap`'s PTBTokenizer printed.
TABLE = {
    "A man's dog isn't happy; it can't swim.": "a man 's dog is n't happy it ca n't swim",
    "the dogs' bowls, the boys'": "the dogs bowls the boys",
    "I'm gonna wanna cannot gimme": "i 'm gon na wan na can not gim me",
    "'tis the '90s, 'cause of 'em": "'t is the '90s 'cause of 'em",
    "they'd've, shouldn't've, y'all": "they 'd 've should n't 've y' all",
    "o'clock ma'am O'Neil c'mon ne'er": "o'clock ma'am o'neil c'mon ne'er",
    "don’t it’s “quoted” ‘single’": "do n't it 's quoted single",
    "A sign that says \"STOP\" and 'GO'.": "a sign that says stop and go",
    "black-and-white t-shirt, a 3-year-old's x-ray": "black-and-white t-shirt a 3-year-old 's x-ray",
    "U.S. flag, Mr. Smith vs. Dr. Who, etc. on Main Ave.": "u.s. flag mr. smith vs. dr. who etc. on main ave.",
    "Ph.D. student": "ph.d. student",
    "plan B. The man": "plan b the man",
    "J. Smith, and plan b.": "j. smith and plan b.",
    "no. 5 is not a no. Wash the Mass. flag.": "no. 5 is not a no wash the mass. flag",
    "It costs $3.50 or 1,000 dollars, 50% off, 1/2 price": "it costs $ 3.50 or 1,000 dollars 50 % off 1/2 price",
    "10:30 a.m. or 10:30am, 5pm": "10:30 a.m. or 10:30 am 5pm",
    "an (empty) [room] {here}": "an -lrb- empty -rrb- -lsb- room -rsb- -lcb- here -rcb-",
    "wait... what?! no!! ok! . . .": "wait what ?! no !! ok",
    "a man — who – is - tall -- ok": "a man who is tall ok",
    "AT&T, R&B and salt & pepper": "at&t r&b and salt & pepper",
    "word,word;word word:word end.Start hi!bye": "word word word word word end.start hi!bye",
    "50¢ £5 €6 ½ cup": "50 cents # 5 $ 6 1/2 cup",
    "a/b and/or w/o c++": "a/b and/or w/o c++",
    "#1 #hash @user a@b.com http://x.com/y?z=1": "# 1 #hash @user a@b.com http://x.com/y?z=1",
    "a 😀 dog 👍🏽": "a dog",
    "cafés naïve 中文 हिन्दी แมวบนโต๊ะ قطة": "cafés naïve 中文 हिन्दी แมวบนโต๊ะ قطة",
    "&amp; <b>bold</b>": "& <b> bold </b>",
    "": "",
    " \n\t ": "",
}


@pytest.mark.parametrize("text", TABLE)
def test_words(text):
    assert words(text) == TABLE[text].split()


PARTS = (
    "A man|Two women|a dog|the dog's owner|Several people|An elderly couple|A St. Bernard|Mr. Bean|a 3-year-old girl|James' horse"
    "|the U.S. flag|a #5 jersey|2 cats|A t-shirt|a stop-sign|a woman's hand|Dr. King|an old-fashioned clock",
    "is riding|stands next to|sitting on|isn't holding|can't reach|holds up|don't like|that's near|, standing by,|they're flying"
    "|says \"hello\" to|with 'STOP' on",
    'a surfboard|the T.V.|a red, white and blue kite|a $5 bill|a sign that says "No Parking"|an umbrella (open)|10:30 a.m. train'
    "|a skateboard - outdoors|a pizza w/ cheese|the 1980's bus|a 12-inch pan|50% off sale|rock 'n' roll band|AT&T building|his/her phone"
    "|a laptop & mouse|Coca-Cola can|Washington, D.C.|the '90s car|M&M's|5 ft. wave|a cake;|café table",
)
ENDS = (".", "", "!", " .", "...", "?", "!!", ", and smiles.", " in the street", ". It is sunny.", ", etc.", " in the U.S.")


def captions(count: int, seed: int = 0) -> list[str]:
    """Made of the parts that captions are made of."""
    rng = random.Random(seed)
    return [" ".join(rng.choice(part.split("|")) for part in PARTS) + rng.choice(ENDS) for _ in range(count)]


@pytest.mark.skipif(shutil.which("java") is None, reason="the reference's tokenizer is a Java program")
def test_they_are_the_references():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = [text for text in [*TABLE, *captions(1500)] if text.strip()]
    theirs = PTBTokenizer().tokenize({number: [{"caption": text}] for number, text in enumerate(texts)})
    differing = {text: theirs[number][0] for number, text in enumerate(texts) if words(text) != theirs[number][0].split()}
    assert differing == {}


@given(st.text(max_size=60))
def test_any_text_has_words(text):
    found = words(text)
    assert all(found)
    assert not any(" " in word or word in PUNCTUATION for word in found if not word.startswith("<"))
    assert words(text.upper()) is not None


@given(st.lists(st.sampled_from(["cat", "dog", "riding", "street", "umbrella", "t-shirt"]), max_size=12))
def test_plain_words_stay(given_words):
    assert words(" ".join(given_words)) == given_words

"""Text -> words as the caption metrics count them: Penn Treebank tokens in lower case, punctuation left out.

CIDEr, BLEU and ROUGE are defined on the tokens of Stanford's `PTBTokenizer` (CoreNLP 3.4.1, a Java program, as `pycocoevalcap` runs it).
This one follows the same conventions without Java, so that a score is the same on every machine; it was written by comparing the two.
On ordinary captions they agree token for token (`tests/evaluation/test_ptb.py` compares them where Java is installed). They may differ
in what captions seldom hold: telephone numbers, addresses without www, smileys, program text, rare apostrophes (Qur'an, fo'c'sle).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""Tokens that are no words. Brackets stay (as -lrb- and so on), and so do runs such as `!!`: the reference means to remove brackets, but
looks for them in capitals after it has made everything small."""


def words(text: str) -> list[str]:
    """The tokens of one caption that are words, in lower case.

    >>> words("A man's dog can't swim in the U.S. (yet).")
    ['a', 'man', "'s", 'dog', 'ca', "n't", 'swim', 'in', 'the', 'u.s.', '-lrb-', 'yet', '-rrb-']
    """
    return [token for token in _tokens(text) if token not in PUNCTUATION]


_ABBREVIATIONS = """
    cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs vt wm adj adm adv al ala apr aug ave bhd cie col cos cpl dak dec
    det drs ens esq est etc ext feb fla fri gen gov hon inc ind jan jos jul jun kan ltd maj mar mfg mme mon mrs mtg neb nev nov oct pfc
    plc pte pty pvt rep rev sen sep seq sfc sgt spc ste sys tel thu tue wed wis wyo ariz assn asst atty bldg blvd brig bros capt cmdr
    colo conn corp dept elec govs intl kans mich minn mont msgr natl okla penn pres prof reps sens sept supt tenn tues univ wisc assoc
    calif comdr lieut thurs messrs bancorp"""
"""Keep their full stop."""
_CAPITAL_ABBREVIATIONS = "Az La Pa Ark Del Ill Miss Mass Ore Tex Wash"
"""Keep it only with a capital letter: small they are words."""
_BEFORE_NUMBERS = "no nos art fig figs pp op ca prop"
"""Keep it before a number."""
_STARTERS = """The A An He She It They This That There In Some We You Her But Many One At When While What As These Our Their If So Then Now
    Here"""
"""Before these a single letter's full stop ends a sentence; elsewhere it belongs to an initial."""


def _any(names: str) -> str:
    return "|".join(names.split())


_MARKS = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0963\u0981-\u0dff\u0e31-\u0e4e\u0eb1-\u0ecd\u102b-\u103e\u17b4-\u17d3"
"""Accents and vowel signs: parts of a word, which Python's `\\w` does not know."""
_L = rf"(?:[^\W\d_]|[{_MARKS}])"
"""A letter."""
_W = rf"(?:[^\W_]|[{_MARKS}])+"
"""Letters and digits."""
_TOKEN = re.compile(
    rf"""
    [a-z]++(?:-[a-z]++)*+(?=\s|\Z)                                     # most words
    | </?[a-z][^<>]*>                                                  # a tag
    | (?:https?://|www\.)[^\s"<>]*[^\s"<>.,;:!?)]                      # an address of the web
    | [\w.-]+@\w[\w-]*(?:\.\w[\w-]*)+                                  # or of a person
    | [@][a-z_]\w* | [#][a-z]+
    | [:;=]-?(?-i:[()DP])(?!{_L})                                      # a smiley
    | {_L}+?(?=n['’`]t(?!{_L})) | n['’`]t(?!{_L})                      # is n't
    | ['’](?:s|d|m|re|ve|ll)(?!{_L})                                   # man 's
    | ['’](?:\d0s|\d\d)(?!\d) | ['’](?:n['’]?|em|til|cause)(?!{_L})    # '90s, 'em
    | ['’]t(?=(?:is|was)(?!{_L}))
    | (?<![^\W_]){_L}\.(?=\s|\Z)(?!\s+(?-i:{_any(_STARTERS)})\b)       # an initial
    | (?<![^\W_])(?:{_any(_ABBREVIATIONS)}|(?-i:{_any(_CAPITAL_ABBREVIATIONS)}))\.(?!\w)
    | (?<![^\W_])(?:{_any(_BEFORE_NUMBERS)})\.(?=\s*\d)                # no. 5
    | (?:us|c|a|nz|hk)\$ | c\+\+ | c[#](?!\w) | (?-i:[A-Z]+(?:&[A-Z]+)+)  # AT&T
    | {_L}+(?:[.!?]{_L}+)+(?:(?<=\.{_L})\.)?(?:-{_L}+)?                # U.S., Ph.D., and sentences without a blank between them
    | [-+]?\d*(?:[.,:]\d+)+(?:-{_L}+)? | [-+]\d+(?!\w) | \d+(?:/\d+)+
    | y['’](?={_L}) | (?:o|d|l|c|j|qu)['’]{_L}+ | {_L}+['’][ae]{_L}+ | cap['’]n | ol['’]
    | {_W}(?:[-/_]{_W})*
    | \.{{2,}} | -{{2,}} | \*+ | [?!]+
    | \S
    """,
    re.X | re.I,
)
_TWO_WORDS = {"cannot": 3, "gonna": 3, "gotta": 3, "wanna": 3, "gimme": 3, "lemme": 3}
"""Spelt as one; where they are cut."""
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_SYMBOLS = str.maketrans(
    {"½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 ", "¢": " cents ", "£": " # ", "€": " $ ", "–": " -- ", "—": " -- ", "…": " ... "}
    | dict.fromkeys('“”"«»', " `` ")
)
"""How characters are written that typewriters lacked. (The pound sign is a typewriter's number sign in British use.)"""
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": " `` ", "&nbsp;": " "}


def _tokens(text: str) -> Iterator[str]:
    text = text.translate(_SYMBOLS)
    if "&" in text:
        for entity, character in _ENTITIES.items():
            text = text.replace(entity, character)
    for match in _TOKEN.finditer(text):
        token = match[0].lower()
        if token in _TWO_WORDS:
            yield token[: _TWO_WORDS[token]]
            yield token[_TWO_WORDS[token] :]
        elif token[0] in "‘’'" and len(token) > 1:
            yield "'" + token[1:]
        elif token[0] in ":;=" and token[-1] in "()":
            yield token[:-1] + _BRACKETS[token[-1]]
        elif len(token) > 1:
            yield {".": "...", "-": "--"}.get(token[0] if token[0] == token[1] else "", token.replace("n’t", "n't"))
        elif token in "‘’":
            yield "'"
        elif not _is_picture(token):
            yield _BRACKETS.get(token, token)


def _is_picture(character: str) -> bool:
    """Emoji and what joins and colours them, and what is no character at all; the reference drops them."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Co", "Mn") or (ord(character) > 0xFFFF and not character.isalnum())

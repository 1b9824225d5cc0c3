"""How well printed text was read: edits by jiwer, in characters and in words, and which words are there at all.

Blanks and line ends between words are all one blank. Needs jiwer (the extra `eval`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..errors import UsageError


@dataclass(frozen=True)
class Reading:
    """One text that was read, compared with the true one.

    `characters`, `words`: how many the truth has; `character_edits`, `word_edits`: the fewest insertions, deletions and replacements that
    make it of the guess; `common`, `guessed`: of the guess's words those that the truth has too, as often, and all.
    """

    characters: int
    character_edits: int
    words: int
    word_edits: int
    common: int
    guessed: int

    @property
    def character_error_rate(self) -> float:
        """Edits per true character: 0 for a perfect reading, above 1 for much that is not there."""
        return self.character_edits / max(self.characters, 1)

    @property
    def exact(self) -> bool:
        return self.character_edits == 0


def compare(guess: str, truth: str) -> Reading:
    """Raises `UsageError` where jiwer is missing."""
    try:
        import jiwer
    except ImportError as error:
        raise UsageError("reading errors are counted with the package jiwer", hint="pip install 'paligemma[eval]'") from error
    guess, truth = " ".join(guess.split()), " ".join(truth.split())
    characters, words = jiwer.process_characters(truth, guess), jiwer.process_words(truth, guess)
    return Reading(
        characters=len(truth),
        character_edits=characters.substitutions + characters.deletions + characters.insertions,
        words=len(truth.split()),
        word_edits=words.substitutions + words.deletions + words.insertions,
        common=(Counter(guess.split()) & Counter(truth.split())).total(),
        guessed=len(guess.split()),
    )


def word_f1(common: float, guessed: float, words: float) -> float:
    """Harmonic mean of the share of guessed words that are true and of true words that were guessed, wherever they stand; 1 for no words.

    Of sums over a data set or of a single reading.
    """
    return 2 * common / (guessed + words) if guessed + words else 1.0

"""How likely a model finds words about pictures: the log-probability of a caption that it did not write."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.forced import logprobs
from ..errors import UsageError
from ..sequence import prompt_ids
from ..tasks import caption
from ..tasks.wording import words
from .asking import batches
from .pictures import Picture, encode, num_tokens
from .verbs import Predictor

MAX_TOKENS = 512
"""Of the words: far more than any caption has."""


def caption_likelihoods(
    predictor: Predictor, pictures: Sequence[Picture], text: str, *, lang: str = "en", batch_size: int | None = None
) -> list[float]:
    """Of each picture, the natural log-probability that its caption begins with `text`: at most 0, the higher the more likely.

    The end token is not counted: what is asked for need not be all that there is to say. Numbers of one text may be compared from picture
    to picture. `batch_size`: see `How`. Raises `UsageError` for no text or too much, `InputError` for what cannot be opened.
    """
    network, tokenizer = predictor.network, predictor.tokenizer
    prompt, answer = prompt_ids(tokenizer, caption.prompt(lang)), tokenizer.encode(words(text, "the text"), locations=False)
    if len(answer) > MAX_TOKENS:
        raise UsageError(f"the text has {len(answer):,} tokens, at most {MAX_TOKENS} are allowed")
    found = [0.0] * len(pictures)
    for batch in batches([num_tokens(network, picture) for picture in pictures], batch_size):
        seen = encode(network, [pictures[place] for place in batch])
        for size in {image.soft.shape[1] for image in seen}:
            rows = [row for row, image in enumerate(seen) if image.soft.shape[1] == size]
            soft, count = network.join([seen[row].soft for row in rows]), len(rows)
            for row, each in zip(rows, logprobs(network, soft, [prompt] * count, [answer] * count, loc=tokenizer.loc), strict=True):
                found[batch[row]] = sum(each)
    return found

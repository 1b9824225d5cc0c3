"""The one place where pictures, text, ids and tensors meet: a loaded model that is asked things and returns typed results.

loading.py    what the user names -> a Predictor: folder, archive, hub id or bundled model; device; number type
pictures.py   whatever is a picture -> EncodedImage, the image tower's answer, reusable for any prompt
asking.py     pictures and prompts -> batches -> answers; streaming
reading.py    generated ids -> typed results; what may be written where objects are asked for
packs.py      a pack, or a small checkpoint, -> a Predictor that needs no PyTorch
several.py    one picture or several, one prompt for all or one each
likelihood.py how likely a model finds words that it did not write
planning.py   what a verb would ask, not asked
explaining.py answers with what they were made of: probabilities, alternatives, where the model looked
verbs.py      caption, ask, detect, ...: which prompt, which grammar, which result
"""

from ..image import Clip
from .asking import CutShort, How, Stream
from .loading import load
from .pictures import EncodedImage, Picture
from .reading import Finding
from .verbs import Predictor

__all__ = ["Clip", "CutShort", "EncodedImage", "Finding", "How", "Picture", "Predictor", "Stream", "load"]

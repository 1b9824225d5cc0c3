"""Property tests: the same examples every time, and no clock, since the machine may be busy."""

from hypothesis import settings

settings.register_profile("paligemma", deadline=None, derandomize=True)
settings.load_profile("paligemma")

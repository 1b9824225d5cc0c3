"""How quick is a model on this machine, and how near to what the machine allows? Times, memory, limits, in one run.

counts.py     what an answer takes at least: bytes and operations, from configuration and weight format
limits.py     what the machine can do at best: reading memory, multiplying
worker.py     one model in a process of its own, which is told what to do and times it
remote.py     that process, seen from here
measuring.py  models side by side: the same work in turn, so that a machine that slows down slows all
figures.py    what was measured, as values; shares of the limits, and which of them is near
words.py      the same in sentences and a table
charts.py     the same as bars | picture.py: a PNG of them | page.py: a page
"""

"""An index whose writer is killed, while others read it.

See docs/search.md.
"""

"""A server among strangers: texts, requests and bytes made to break it, clients that leave, more work than it can do, an hour of all that.

See docs/reliability.md.
"""

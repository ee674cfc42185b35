"""Tickwright from Python: jobs as functions, and a node inside one's own program."""

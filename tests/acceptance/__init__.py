"""Tickwright as a user meets it: real nodes, the real command line, nothing mocked."""

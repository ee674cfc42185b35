"""What everyone agrees on: messages, specs, states, errors and ports; no I/O."""

from protocols.actor import Actor, Context, Props, Ref, Terminated

__all__ = ["Actor", "Context", "Props", "Ref", "Terminated"]

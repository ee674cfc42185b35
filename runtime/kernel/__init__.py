"""The kernel: cells, mailboxes, supervisors, registry, and the test kit for who writes actors."""

from runtime.kernel.system import ActorSystem

__all__ = ["ActorSystem"]

"""Refs that reach actors of other nodes: the same contract, over a transport that may lose."""

from runtime.kernel.remote.refs import RemoteRef
from runtime.kernel.remote.remoting import Remoting

__all__ = ["RemoteRef", "Remoting"]

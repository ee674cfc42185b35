"""For tests of actors: virtual time that jumps when all are idle, probes, and a network to spoil.

No test that uses it sleeps, and a seed repeats it.
"""

from runtime.kernel.testkit.kit import TestKit
from runtime.kernel.testkit.network import Network, Parcel
from runtime.kernel.testkit.node import TestSystem
from runtime.kernel.testkit.probe import Probe
from runtime.kernel.testkit.virtual import NodeTime, VirtualClock
from runtime.kernel.testkit.wire import Wire, WireEnd

__all__ = [
    "Network",
    "NodeTime",
    "Parcel",
    "Probe",
    "TestKit",
    "TestSystem",
    "VirtualClock",
    "Wire",
    "WireEnd",
]

"""The coordinator over etcd; needs the extra `tickwright[cluster]`."""

from runtime.etcd.coordinator import EtcdCoordinator
from runtime.etcd.settings import EtcdSettings

__all__ = ["EtcdCoordinator", "EtcdSettings"]

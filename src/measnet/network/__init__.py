"""The network, one file per idea of the paper."""

from measnet.network.measnet import MEASNet, Restoration

__all__ = ["MEASNet", "Restoration"]

"""The network, one file per idea of the paper."""

from measnet.network.measnet import MEASNet, MEASNetOutput

__all__ = ["MEASNet", "MEASNetOutput"]

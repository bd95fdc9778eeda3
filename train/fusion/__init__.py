"""Learns how far fusion may trust the past (``runtime/trust.py``), from made-up scenes and clips."""

"""Calibration: frames + graph -> ranges -> a quantised graph. Empty: INT8 comes with its own issue."""

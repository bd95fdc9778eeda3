"""Calibration: frames + graph -> ranges -> a quantised graph. Nothing here yet; INT8 comes with its own issue."""

"""Calibration: frames + graph -> ranges -> a quantised graph. `measnet-calibrate` is its command line."""

"""Calibration: frames + graph -> ranges -> a quantised graph. `measnet-export --int8` is its command line."""

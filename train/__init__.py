"""Training: clean pictures -> checkpoint. `measnet-train` is its command line."""

"""Runtime: source -> frames -> backend -> frames -> sink. `measnet-run` is its command line."""

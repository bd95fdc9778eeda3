"""Export: checkpoint -> exact graph. `measnet-export` is its command line."""

"""Export: checkpoint -> graph -> engine. `measnet-export` is its command line."""

"""Pictures and pairs on disk in, pairs of degraded and clean crops out."""

"""Several cameras in one process, which share what restores: ``measnet-serve``."""

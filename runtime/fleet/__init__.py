"""Archives restored by many processes, on one machine or many: ``measnet-run --ray``."""

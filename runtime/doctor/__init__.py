"""What this machine can do with MEASNet, what is missing, and proof of it."""

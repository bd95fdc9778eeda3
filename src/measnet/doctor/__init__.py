"""Doctor: tells what this machine can do with MEASNet and what is missing, and proves it."""

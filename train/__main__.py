"""``python -m measnet.train``: what torchrun starts."""

from measnet.train.cli import main

main()

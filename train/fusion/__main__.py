"""``python -m measnet.train.fusion``."""

from measnet.train.fusion.cli import main

main()

"""`python -m aico_lab` is `aico-lab`."""

from aico_lab.cli import main

main()

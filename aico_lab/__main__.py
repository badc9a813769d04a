"""Run `aico-lab` as `python -m aico_lab`."""

from aico_lab.cli import main

main()

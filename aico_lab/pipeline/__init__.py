"""Pipelines: several steps as one job, described in a TOML file."""

from aico_lab.pipeline.definition import Pipeline, Step, load_pipeline
from aico_lab.pipeline.running import StepResult, run_pipeline

__all__ = ["Pipeline", "Step", "StepResult", "load_pipeline", "run_pipeline"]

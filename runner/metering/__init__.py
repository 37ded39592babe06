"""Counters become Usage; budget arithmetic; pure."""

from runner.metering.limits import crossed
from runner.metering.sampled import ProcessSample, SampledUsage
from runner.metering.usage import add, cpu_s, microseconds, total

__all__ = ["ProcessSample", "SampledUsage", "add", "cpu_s", "crossed", "microseconds", "total"]

"""Which LLM, layer and pooling tells most of the complex prompt beyond the text encoder, found without training."""

from sur.analysis.probe.measure import probe
from sur.analysis.probe.results import ProbeResult
from sur.config.probe import ProbeConfig

__all__ = ["ProbeResult", "ProbeConfig", "probe"]

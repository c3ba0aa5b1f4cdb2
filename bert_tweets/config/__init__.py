"""The settings of all stages, as typed dataclasses whose fields carry a description, unit, choices and bounds.

`parser.py` fills them from YAML files and `key=value` arguments, and prints them for `--help`. Fields declare how a
single value is validated (type, choices, bounds); the method `problems` reports conflicts between settings.
"""

from .fields import PERIODS, Settings, setting, settings_group
from .prepare import FilterConfig, InspectConfig, NearConfig, PrepareConfig, VerifyConfig
from .train import (
    DataConfig,
    DryRunConfig,
    EngineConfig,
    LogConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    ScratchConfig,
    TrainConfig,
    ValidationConfig,
)
from .words import (
    AnalyzeConfig,
    DemoConfig,
    DoctorConfig,
    EmbedConfig,
    EvaluateConfig,
    ExportConfig,
    MeaningTestConfig,
    ReportConfig,
    RunConfig,
)

__all__ = [
    "PERIODS",
    "AnalyzeConfig",
    "DataConfig",
    "DemoConfig",
    "DoctorConfig",
    "DryRunConfig",
    "EmbedConfig",
    "EngineConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FilterConfig",
    "InspectConfig",
    "LogConfig",
    "MaskingConfig",
    "MeaningTestConfig",
    "ModelConfig",
    "NearConfig",
    "OptimizerConfig",
    "PrepareConfig",
    "ReportConfig",
    "RunConfig",
    "ScheduleConfig",
    "ScratchConfig",
    "Settings",
    "TrainConfig",
    "ValidationConfig",
    "VerifyConfig",
    "setting",
    "settings_group",
]

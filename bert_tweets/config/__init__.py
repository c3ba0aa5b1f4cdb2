"""Every setting of every stage: typed dataclasses whose fields carry meaning, unit and choices.

`options.py` fills them from YAML files and `key=value` words, and prints them for `--help`. What one field
alone can get wrong (type, choice, bounds) is stated here; what fields get wrong together is said by `problems`.
"""

from .fields import PERIODS, setting, settings_group
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
    "TrainConfig",
    "ValidationConfig",
    "VerifyConfig",
    "setting",
    "settings_group",
]

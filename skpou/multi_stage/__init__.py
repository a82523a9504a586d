"""Stages, each fitted to what the ones before left over."""

from skpou.multi_stage.regressor import MultiStageRegressor

__all__ = ["MultiStageRegressor"]

"""An Olive pass for tests: reports one step and hands the model on, or fails as it is told to."""

from __future__ import annotations

import errno

from olive.passes import Pass  # noqa: TID253
from olive.passes.pass_config import PassConfigParam  # noqa: TID253

from resources.errors import ConfigurationError
from resources.olive.progress_channel import current_progress


class ReportingPass(Pass):
    @classmethod
    def _default_config(cls, accelerator_spec):
        return {"failure": PassConfigParam(type_=str, default_value="")}

    def _run_for_config(self, model, config, output_model_path):
        current_progress().step("reporting", 1, 1)
        if config.failure == "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        if config.failure == "configuration":
            raise ConfigurationError("awq_model.group_size", "48", "16, 32")
        return model

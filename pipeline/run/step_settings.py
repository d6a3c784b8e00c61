"""Makes the settings of the read, infer and sink steps from the settings of the run."""

from pipeline.chunks.columns import output_schema
from pipeline.config.identity import identity_digest
from pipeline.infer.config import InferConfig
from pipeline.publish.config import SinkConfig
from pipeline.read.read_shard import ReadConfig
from pipeline.run.run import Run


def sink_config(run: Run) -> SinkConfig:
    """Returns the settings with which the sink step publishes slices."""
    return SinkConfig(
        output=run.config.output.folder,
        schema=output_schema(run.config.task.columns(run.checkpoint.network), run.config.input.keep_columns),
        identity=identity_digest(run.identity),
        run_id=run.run_id,
        network=run.checkpoint.network,
        may_write=run.lease.fence.check,
    )


def read_config(run: Run, pass_number: int, *, last_pass: bool) -> ReadConfig:
    """Returns the settings of the read step in one pass."""
    config, output = run.config, run.config.output
    return ReadConfig(
        input=config.input,
        rows_per_file=output.rows_per_file,
        max_file_bytes=output.max_file_mib * 2**20,
        task=config.task,
        network=run.checkpoint.network,
        sizes=config.sizes,
        pass_number=pass_number,
        last_pass=last_pass,
    )


def infer_config(run: Run, device: str) -> InferConfig:
    """Returns the settings of the infer step, without the weights."""
    return InferConfig(
        config_json=run.checkpoint.files.config_json,
        preprocessor_json=run.checkpoint.files.preprocessor_json,
        variant=run.config.variant,
        labels=run.checkpoint.labels,
        task=run.config.task,
        device=device,
        precision=run.identity["precision"],
    )

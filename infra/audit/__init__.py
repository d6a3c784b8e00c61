"""An independent audit of an output folder, which counts inputs and rows again and imports no code of the job.

The audit relies only on what the documentation promises (README.md, docs/design/commit-protocol.md), and reports what
the documentation leaves open.
"""

"""An independent audit of an output folder: inputs, rows and report are counted again, and nothing of ours is imported.

The audit knows only what the documentation promises (README.md, docs/design/commit-protocol.md), and reports what that
leaves open.
"""

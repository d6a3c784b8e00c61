"""An independent audit of an output folder: inputs, rows and report are counted again, and nothing of ours is imported.

What it knows is what the documentation promises (README.md, docs/design/commit-protocol.md); what that leaves open it says.
"""

"""The pipeline: plan -> read -> decode -> infer -> sink -> account; the files are named after the steps."""

"""The pipeline in rooms, named after the flow: plan -> read -> decode -> infer -> publish -> account."""

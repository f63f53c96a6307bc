"""The benchmarks that are shipped: a YAML file each, whose fields `chexray.evals.specs` describes."""

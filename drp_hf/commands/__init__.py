"""One file a stage: a config dataclass, `main(config)`, and `cli()` that parses and runs."""

"""Contract suites, a fake clock and a fake backend: for those who write adapters."""

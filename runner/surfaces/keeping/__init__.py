"""The process that keeps a session (`runner.sessions`)."""

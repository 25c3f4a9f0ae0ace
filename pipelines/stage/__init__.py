"""Stage execution: declaration, reports, fingerprints, runners. Never imports `continuity` or a command."""

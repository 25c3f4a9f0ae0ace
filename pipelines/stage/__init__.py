"""Stage execution: declaration, reports, fingerprints, runners. Never imports a command."""

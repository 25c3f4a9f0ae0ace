"""Options, the parser and what is shown on a terminal. Imports nothing else of pipelines."""

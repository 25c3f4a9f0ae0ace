"""Names of the tables and files by which stages and publishing find each other's results."""

STATISTICS = "statistics"
STATISTICS_FILE = "statistics.json"
EVALUATION = "evaluation"
EVALUATION_FILE = "evaluation.json"

"""Looking at what is there: statistics, lint, probe, reports and pages of stores and runs."""

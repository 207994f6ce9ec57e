"""The harness: training, evaluation, statistics, plots and reports."""

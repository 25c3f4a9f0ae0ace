"""Backtest: splits, the test set, baselines, ablations, measures. May import all but `tuning`, `recommend`,
`validate`, `extract`, `media`, `text`.
"""

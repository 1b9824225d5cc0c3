"""Fault campaigns against training runs: kill, crash, refuse, damage and disturb a run, then demand what a run that was left alone gives.

python -m tests.training.campaigns --tier push|ci|release [--campaign C12] [--seed N] [--case K] [--trainer module:function]
"""

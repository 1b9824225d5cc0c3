"""Fault campaigns against training runs: kill, crash, refuse, damage and disturb a run, then demand what a run that was left alone gives.

python -m tests.training.campaigns --tier push|ci|release [--trainer toy|real|module:function] [--campaign C12] [--cases N | --case K]
"""

"""Evaluation of video: sequences restored as measnet-run restores them, judged in space and over time."""

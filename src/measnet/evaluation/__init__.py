"""Evaluation of models: restored pictures compared with the true ones, as published and as users get them."""

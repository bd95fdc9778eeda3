"""What a model is worth: restored pictures held against the true ones, the published way and the user's."""

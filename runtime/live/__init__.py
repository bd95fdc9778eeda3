"""Live streams: states, events and figures of a camera, for whoever watches it."""

"""Source and result beside each other, in one picture, in one video, or on a page with a slider."""

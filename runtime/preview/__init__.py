"""Source and result on the screen while a run goes on: small, seldom, and never in the result's way."""

"""Search policies: each is asked for an operating point and told what was measured there."""

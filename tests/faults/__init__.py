"""Real faults under load: what came out is compared with what was sent."""

"""Generated from proto/greend/v1 by scripts/gen-proto."""

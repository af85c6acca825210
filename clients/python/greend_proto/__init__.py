"""Generated protobuf messages and gRPC stubs of greend; imports nothing of ours."""

"""The doors: thin servicers over gRPC."""

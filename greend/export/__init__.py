"""What others scrape: a view over what is measured. Nothing here reads a device."""

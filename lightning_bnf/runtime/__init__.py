"""What every room stands on: processes, memory, files, fingerprints."""

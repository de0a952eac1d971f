"""The operating system underneath: files, hashes, processes, memory."""

"""Work that runs in other processes: the jobs, and the engines that run them here or on a cluster."""

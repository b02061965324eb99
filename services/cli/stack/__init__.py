"""The local stack: servers, sidecars and apps as one supervised set of processes. Start at `Stack`."""

"""A test app that another app calls by `RpcClient`."""

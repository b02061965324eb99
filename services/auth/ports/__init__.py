"""Ports of auth: what its services need of Postgres, OpenFGA and Firebase."""

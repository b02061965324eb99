"""What auth keeps in Postgres, schema `auth`."""

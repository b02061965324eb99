"""Relationship tuples in OpenFGA, by its SDK."""

from services.auth.adapters.openfga.relations import OpenFgaRelations as OpenFgaRelations
from services.auth.adapters.openfga.store import MODEL as MODEL
from services.auth.adapters.openfga.store import STORE as STORE

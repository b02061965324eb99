"""Object store: objects of an S3 bucket, presigned requests, uploads by parts, and content-addressed claim checks."""

from services.kit.claim_check import ContentReference
from services.kit.storage.objects.content import ContentCorrupt, ContentMissing, ContentStore
from services.kit.storage.objects.presigned import PresignedRequest
from services.kit.storage.objects.reader import ByteRange, ObjectInfo, ObjectReader
from services.kit.storage.objects.settings import ObjectStoreSettings
from services.kit.storage.objects.store import ObjectStore, StoredObject
from services.kit.storage.objects.uploads import Leftover, Upload, UploadedPart, Uploads

__all__ = [
    "ByteRange",
    "ContentCorrupt",
    "ContentMissing",
    "ContentReference",
    "ContentStore",
    "Leftover",
    "ObjectInfo",
    "ObjectReader",
    "ObjectStore",
    "ObjectStoreSettings",
    "PresignedRequest",
    "StoredObject",
    "Upload",
    "UploadedPart",
    "Uploads",
]
